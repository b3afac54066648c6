"""Published rounds of the recipes that screen nothing, on the corpus of ``tests.world_by_hand``, for audits.

built = build_document_round(home, "knn")                      # made by the product's own steps
built = build_document_round(home, "knn", change=my_change)    # ``change(tables)`` edits its rows

Documents have forty tokens and nothing in them tells documents apart but their words; all vectors are equal, so the
nearest chunk is the first.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.embedders import EmbedderConfig
from storage.digests import canonical_json, digest_json
from storage.home import Home
from storage.manifests import Manifest, NumericEnvironment, Source, entries_of, shard_name
from storage.policies import policy_folder
from storage.refs import Ref
from storage.schemas import TABLES
from storage.tables import read_table, write_table
from storage.vectors import IndexConfig
from storage.versions import publish_version
from tasks.audit.checks import AuditReport
from tasks.resources import PolicyInputs
from tasks.rounds.funnel import funnel_counts, token_counts
from tasks.whole_documents.concatenation import ConcatenationInputs, StandardOptions, concatenate
from tasks.whole_documents.interleaving import InterleavingInputs, interleave
from tasks.whole_documents.knots import KnotsInputs, KnotsOptions, tie_knots
from tasks.whole_documents.meta_chunks import MetaChunkInputs, cut_meta_chunks
from tasks.whole_documents.meta_retrieval import MetaRetrievalInputs, retrieve_for_meta_chunks
from tasks.whole_documents.neighbour_concatenation import NeighbourConcatenationInputs, concatenate_neighbours
from tasks.whole_documents.neighbours import KnnOptions, NeighbourInputs, find_neighbours
from tasks.whole_documents.nextlong import NextLongOptions
from tests.rounds import BuiltRound, frames, make_corpus, make_policy
from tests.world import BruteForceIndex
from tests.world_by_hand import SEPARATOR, Change, Row, Shards, chunks, documents

CONFIG = {"verification": {"separator": SEPARATOR}, "rounds": 2, "options": {"seed": 0}}
Fields = dict[str, Any]
SAMPLES = "samples/samples-00000.parquet"
UNPLACED = {"root": None, "kind": "document", "chunk": None, "doc": None, "tokens": 3, "reason": "sample-full"}


class EqualEmbedder:
    """Gives every text the vector that every chunk of the world has."""

    digest = "e" * 64

    def encode(self, texts: list[str], kind: str) -> NDArray[np.float32]:
        return np.tile(np.array([1.0, 0.0], np.float32), (len(texts), 1))


def put_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The world's index and embedder in place of the product's."""
    index = BruteForceIndex(np.tile(np.array([1.0, 0.0], np.float32), (len(chunks()), 1)))
    for module in ("tasks.whole_documents.neighbours", "tasks.whole_documents.meta_retrieval"):
        monkeypatch.setattr(f"{module}.index_for", lambda home, corpus, config: index)
    monkeypatch.setattr("tasks.whole_documents.meta_retrieval.embedder_for", lambda config: EqualEmbedder())


def _standard(home: Home, fields: Fields) -> dict[str, Ref]:
    return concatenate.run(home, ConcatenationInputs(**fields), StandardOptions())


def _knots(home: Home, fields: Fields) -> dict[str, Ref]:
    return tie_knots.run(home, KnotsInputs(**fields), KnotsOptions(least_part_tokens=8, documents=2))


def _knn(home: Home, fields: Fields) -> dict[str, Ref]:
    options = KnnOptions(neighbours=2)
    found = find_neighbours.run(home, NeighbourInputs(**fields, index=IndexConfig()), options)
    inputs = NeighbourConcatenationInputs(**fields, neighbours=(found["neighbours"],))
    return found | concatenate_neighbours.run(home, inputs, options)


def _nextlong(home: Home, fields: Fields) -> dict[str, Ref]:
    options = NextLongOptions(scale=True, stretches=0)
    cut = cut_meta_chunks.run(home, MetaChunkInputs(**fields), options)
    shard = MetaRetrievalInputs(
        roots=cut["roots"], first_root=0, stop_root=cut["roots"].rows, corpus=fields["corpus"],
        target_tokens=fields["target_tokens"], embedder=EmbedderConfig(), index=IndexConfig(),
    )  # fmt: skip
    found = retrieve_for_meta_chunks.run(home, shard, options)
    inputs = InterleavingInputs(
        **fields, roots=cut["roots"], candidates=(found["candidates"],), left_out=cut["unplaced"]
    )
    return cut | found | interleave.run(home, inputs, options)


RECIPES: dict[str, tuple[Callable[[Home, Fields], dict[str, Ref]], int]] = {
    "standard": (_standard, 30),
    "untie-the-knots": (_knots, 50),
    "knn": (_knn, 70),
    "nextlong": (_nextlong, 128),
}
"""Recipe → its steps, and the length of its samples."""


_known: dict[str, str] = {}


def _made(home: Home, recipe: str, fields: Fields) -> dict[str, list[Row]]:
    """The tables of a recipe's steps, made once in a process: all that they depend on is in the key."""
    key = digest_json([recipe, {name: value for name, value in fields.items() if name != "policy"}])
    if key not in _known:
        made = RECIPES[recipe][0](home, fields)
        _known[key] = json.dumps({name: read_table(home.path, ref).to_dicts() for name, ref in made.items()})
    tables: dict[str, list[Row]] = json.loads(_known[key])
    return tables


def build_document_round(
    home: Home, recipe: str, *, number: int = 1, target: int | None = None, change: Change | None = None
) -> BuiltRound:
    """Makes and publishes round ``number`` of 2; ``change`` edits its rows first."""
    length = RECIPES[recipe][1]
    corpus = make_corpus(home)
    policy = make_policy(home, 1, parent=None, trained_on=None)
    fields: Fields = {
        "corpus": corpus,
        "tokenizer": "a" * 64,
        "separator": SEPARATOR,
        "target_tokens": target or length,
        "round": number,
        "rounds": 2,
        "policy": PolicyInputs(digest=policy, folder=str(policy_folder(home, policy))),
    }
    tables: Shards = {name: [rows] for name, rows in _made(home, recipe, fields).items()}
    if change is not None:
        change(tables)
    files: dict[str, Source] = {"config.json": canonical_json(CONFIG)}
    for name, (rows,) in tables.items():
        uri = f"work/by-hand/{name}-{digest_json(rows)[:12]}.parquet"
        files[shard_name(name, 0)] = write_table(home.path, uri, TABLES[name], rows)
    whole = frames(home, files)
    manifest = Manifest(
        round=number,
        recipe=recipe,
        config=CONFIG,
        config_digest=digest_json(CONFIG),
        corpus=corpus,
        embedder="e" * 64,
        policy=policy,
        parent_policy=None,
        parent_version=None,
        relation="unscreened",
        files=entries_of(home, files),
        numeric=NumericEnvironment(device="cpu", dtype="float32", threads=1, versions={}),
        funnel=funnel_counts(whole),
        tokens=token_counts(whole["samples"]),
        seeds={},
        code_versions={},
        figures={},
    )
    return BuiltRound(home, publish_version(home, manifest, files), manifest, files, tables)


def rows(tables: Shards, table: str) -> list[Row]:
    """Rows of a table."""
    return tables[table][0]


def spans(tables: Shards, kind: str, sample: int = 0) -> list[Row]:
    """Spans of a kind in a sample, in order."""
    return [s for s in rows(tables, "samples")[sample]["segments"] if s["kind"] == kind]


def foreign(tables: Shards) -> int:
    """A screened document that the round does not start from."""
    own = {row["doc"] for row in rows(tables, "neighbours" if "neighbours" in tables else "roots")}
    return next(row for row, d in enumerate(documents()) if d["part"] == "screen" and row not in own)


def failures(report: AuditReport) -> dict[str, str | None]:
    """{check that failed: file}."""
    return {finding.check: finding.file for finding in report.failures}


def dependency() -> Row:
    """A dependency of a root that is none."""
    return {
        "root_id": "0" * 64, "t": 3, "position": 9, "chunk_id": chunks()[0]["chunk_id"], "distance": 2,
        "entropy_before": 3.0, "entropy_after": 1.0, "gain": 0.67,
    }  # fmt: skip
