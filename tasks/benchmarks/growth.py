"""Whether a root takes longer where the corpus is larger, the search left out.

The larger table repeats the chunks of the smaller one under other numbers, and every candidate is replaced by one of
its copies, drawn by seed: the policy reads the same tokens, the tables are as large as they are.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from storage.corpora import open_corpus, publish_corpus
from storage.digests import digest_json
from storage.home import Home
from storage.refs import Ref
from storage.schemas import CHUNKS, QUARANTINE, VECTORS
from storage.tables import open_table, read_table, write_table
from tasks.benchmarks.contexts import candidates_table, drawn_chunks
from tasks.benchmarks.measurement import Measurement, Target
from tasks.benchmarks.scene import Scene
from tasks.benchmarks.sizes import Size
from tasks.benchmarks.timing import in_turns
from tasks.screening.verification import VerificationInputs, verify

CANDIDATES_PER_POSITION = 16
FOLDER = "work/bench"


@dataclass(frozen=True, slots=True)
class Growth:
    """The same verification over a smaller and a larger table of chunks."""

    roots: int
    pairs: int
    chunks: tuple[int, int]
    small: VerificationInputs
    large: VerificationInputs


def growth(scene: Scene, size: Size) -> Measurement:
    """Seconds per root of verification, placebos included, with the smaller and with the larger chunk table."""
    work = growth_work(scene, size)
    config = scene.build.verification
    times = in_turns(
        {
            "small": lambda: verify.produce(scene.home, work.small, config),
            "large": lambda: verify.produce(scene.home, work.large, config),
        },
        repeats=size.repeats,
    )
    small, large = work.chunks
    return Measurement(
        name=f"seconds per root outside retrieval, {small:,} → {large:,} chunks",
        unit="s/root",
        ours=times.per("large", work.roots, f"{large:,} chunks"),
        alternatives=(times.per("small", work.roots, f"{small:,} chunks"),),
        ratio=times.ratio("large", "small"),
        ratio_of="larger over smaller",
        target=Target(sense="at most", value=1.1),
        conditions={
            "roots": work.roots,
            "pairs": work.pairs,
            "chunks": "real; the larger table repeats them under other numbers",
            "left out": "entropies and assembly, which read no table of chunks as a whole",
        },
    )


def growth_work(scene: Scene, size: Size) -> Growth:
    """Candidates drawn for the uncertain positions of real roots, over both tables."""
    small, large = size.growth_chunks
    small = min(small, scene.corpus.chunks.rows)
    copies = max(1, large // small)
    roots, rows = scene.roots(), scene.rows(size.growth_roots)
    positions = scene.positions(roots, rows)
    uncertain = read_table(scene.home.path, positions, ["root", "t"]).group_by("root", maintain_order=True).agg("t")
    drawn = drawn_chunks(scene.home, roots, scene.corpus.chunks, rows, CANDIDATES_PER_POSITION, below=small)
    pairs = {root: [(t, chunk) for t in ts for chunk in drawn[root]] for root, ts in uncertain.iter_rows()}

    def inputs(times_over: int) -> VerificationInputs:
        moved = {
            root: [(t, _copy(root, chunk, small, times_over)) for t, chunk in found] for root, found in pairs.items()
        }
        return VerificationInputs(
            positions=positions,
            candidates=candidates_table(scene.home, moved),
            roots=roots,
            corpus=_repeated(scene, small, times_over),
            policy=scene.policy,
        )

    count = sum(len(found) for found in pairs.values())
    return Growth(max(1, len(pairs)), count, (small, small * copies), inputs(1), inputs(copies))


def _copy(root: int, chunk: int, small: int, copies: int) -> int:
    """The number of one of the copies of a chunk."""
    return chunk + small * random.Random(f"{root}:{chunk}").randrange(copies)


def _repeated(scene: Scene, small: int, copies: int) -> str:
    """The digest of a corpus whose chunk table holds the first ``small`` chunks ``copies`` times; no vectors."""
    home, corpus = scene.home, scene.corpus
    name = f"{FOLDER}/chunks-{corpus.digest[:16]}-{small}x{copies}.parquet"
    tables = {
        "documents": corpus.documents,
        "chunks": write_table(home.path, name, CHUNKS, _rows(home, corpus.chunks, small, copies)),
        "quarantine": write_table(home.path, f"{FOLDER}/no-quarantine.parquet", QUARANTINE, []),
        "vectors-00000": write_table(home.path, f"{FOLDER}/no-vectors.parquet", VECTORS, []),
    }
    description = {key: corpus.manifest[key] for key in ("embedder", "chunking")}
    return open_corpus(home, publish_corpus(home, {**description, "purpose": "benchmark"}, tables)).digest


def _rows(home: Home, chunks: Ref, small: int, copies: int) -> Any:
    with open_table(home.path, chunks) as file:
        first = file.read().slice(0, small).to_pylist()
    for copy in range(copies):
        for row in first:
            yield row if copy == 0 else {**row, "chunk_id": digest_json([row["chunk_id"], copy])}
