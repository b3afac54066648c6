"""Complete small rounds, written by hand: every table, a card's worth of manifest, published through the product's own
code.

A world of six documents of forty words. Words are tokens (``w7`` is token 8, the separator is token 0), so every
number can be checked by eye. Round k screens the probe root and two train roots; every position has three candidates,
one excluded, and of the two verdicts one is kept.

    built = build_round(home)                       # tables and version; corpus and policy are digests of nothing
    built = build_rounds(home, 2)[-1]               # with corpus, policies, parents and campaign, as an audit wants
    built = build_round(home, change=my_change)     # ``change(tables)`` edits the rows before they are written and
    signed
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from models.policy_files import policy_digest, policy_listing
from storage.campaigns import RoundRecord, record_round, start_campaign
from storage.corpora import publish_corpus
from storage.digests import canonical_json, digest_json, digest_text
from storage.files import write_json
from storage.home import Home
from storage.manifests import Manifest, NumericEnvironment, Source, entries_of, shard_name
from storage.policies import add_policy
from storage.refs import Ref
from storage.schemas import TABLES
from storage.tables import write_table
from storage.versions import publish_version, version_uri
from tasks.funnel import funnel_counts, token_counts

Row = dict[str, Any]
Shards = dict[str, list[list[Row]]]
Change = Callable[[Shards], None]

SEPARATOR = "\n\n"
WORDS = 60
DOCUMENT_WORDS = 40
CHUNK_WORDS = 10
ROOT_WORDS = 20
POSITIONS = (5, 11)
PARTS = ("screen", "screen", "screen", "screen", "probe", "heldout")
CONFIG = {
    "entropy": {"alpha": 2.0},
    "verification": {"epsilon": 0.4, "separator": SEPARATOR},
    "campaign": {"rounds": 2},
}


def tokens(text: str) -> list[int]:
    """The world's tokenizer."""
    return [0] if text == SEPARATOR else [int(word[1:]) + 1 for word in text.split(" ")]


def documents() -> list[Row]:
    rows = []
    for number, part in enumerate(PARTS):
        text = " ".join(f"w{(17 * number + 7 * place + number * place) % WORDS}" for place in range(DOCUMENT_WORDS))
        rows.append(
            {
                "doc_id": digest_text(text),
                "text": text,
                "source": f"world#{number}",
                "title": f"document {number}",
                "group": f"group {number}",
                "part": part,
                "metadata": "{}",
            }
        )
    return rows


def _span(text: str, first: int, words: int) -> tuple[int, int]:
    split = text.split(" ")
    start = len(" ".join(split[:first])) + (1 if first else 0)
    return start, start + len(" ".join(split[first : first + words]))


def chunks() -> list[Row]:
    """Four chunks of each screened document: chunk 4 * doc + ordinal."""
    rows = []
    for doc, row in enumerate(documents()):
        for ordinal in range(DOCUMENT_WORDS // CHUNK_WORDS if row["part"] == "screen" else 0):
            start, end = _span(row["text"], ordinal * CHUNK_WORDS, CHUNK_WORDS)
            rows.append(
                {
                    "chunk_id": digest_json([row["doc_id"], start, end]),
                    "doc": doc,
                    "ordinal": ordinal,
                    "char_start": start,
                    "char_end": end,
                    "tokens": CHUNK_WORDS,
                    "text": row["text"][start:end],
                }
            )
    return rows


def roots() -> list[Row]:
    """The probe root (document 4), then one root of each screened document: round k trains on rows 2k - 1 and 2k."""
    rows = []
    for doc in (4, 0, 1, 2, 3):
        row = documents()[doc]
        start, end = _span(row["text"], 0, ROOT_WORDS)
        ids = tokens(row["text"][start:end])
        rows.append(
            {
                "root_id": digest_json([row["doc_id"], start, end, ids]),
                "doc": doc,
                "role": row["part"] if row["part"] == "probe" else "train",
                "char_start": start,
                "char_end": end,
                "input_ids": ids,
            }
        )
    return rows


def round_tables(number: int) -> Shards:
    """Every table of round ``number`` (1 or 2) as shards of rows; the second shard holds the last root."""
    own = [0, 2 * number - 1, 2 * number]
    shards = [own[:2], own[2:]]
    tables: Shards = {"roots": [roots()], "unplaced": [[]]}
    for name in ("screened", "positions", "candidates", "verdicts", "negatives"):
        tables[name] = [[row for root in shard for row in _rows_of(name, root)] for shard in shards]
    tables["samples"] = [[_sample(own[1:])]]
    return tables


def _rows_of(table: str, root: int) -> Iterator[Row]:
    statistics = {"mean": 1.0, "std": 0.5, "threshold": 2.0}
    ids = roots()[root]["input_ids"]
    if table == "screened":
        yield {"root": root, "tokens": len(ids), "scored": len(ids) - 1, "selected": len(POSITIONS), **statistics}
    for t in POSITIONS if table in ("positions", "candidates", "verdicts") else ():
        kept, dropped, excluded = _near(root, t)
        if table == "positions":
            yield {
                "root": root,
                "t": t,
                "token_id": ids[t],
                "entropy": 3.0,
                "nll": 2.5,
                "query": f"around {t}",
                **statistics,
            }
        elif table == "candidates":
            for rank, (chunk, reason) in enumerate(((kept, None), (excluded, "root-document"), (dropped, None))):
                yield {
                    "root": root,
                    "t": t,
                    "chunk": chunk,
                    "rank": rank,
                    "score": 0.9 - 0.1 * rank,
                    "excluded": reason,
                }
        else:
            yield _verdict(root, t, kept, 0.75)
            yield _verdict(root, t, dropped, 2.7)
    if table == "negatives":
        for t in POSITIONS:
            seed, dropped, _ = _near(root, t)
            twin = 4 * ((dropped // 4 + 1) % 4) + 3
            for rank, (chunk, reason) in enumerate(((_negative(root, t), None), (twin, "near-duplicate"))):
                row = {"root": root, "seed_chunk": seed, "chunk": chunk, "rank": rank, "score": 0.8, "max_gain": None}
                yield {**row, "kept": reason is None, "reason": reason}


def _near(root: int, t: int) -> tuple[int, int, int]:
    """The kept, the dropped and the excluded candidate of a position; the first two from other documents."""
    other = (roots()[root]["doc"] + 2) % 4
    place = POSITIONS.index(t)
    own = min(roots()[root]["doc"], 3)
    return 4 * other + place, 4 * ((other + 1) % 4 if root == 0 else other) + 2, 4 * own


def _negative(root: int, t: int) -> int:
    return 4 * ((roots()[root]["doc"] + 2) % 4) + 2 + POSITIONS.index(t)


def _verdict(root: int, t: int, chunk: int, after: float) -> Row:
    gain = (3.0 - after) / 3.0
    return {
        "root": root,
        "t": t,
        "chunk": chunk,
        "entropy_before": 3.0,
        "entropy_after": after,
        "nll_before": 2.5,
        "nll_after": 1.0,
        "gain": gain,
        "literal": False,
        "placebo_gain": 0.05 if t == POSITIONS[0] else None,
        "kept": gain > 0.4,
        "reason": None if gain > 0.4 else "gain-too-small",
    }


def _sample(train: list[int]) -> Row:
    """Positives and negatives of all roots first, the roots last, a separator between spans."""
    table, docs, passages = roots(), documents(), chunks()
    ids: list[int] = []
    segments: list[Row] = []

    def add(kind: str, root: int, chunk: int | None, span: list[int], doc: int) -> None:
        if ids:
            ids.extend(tokens(SEPARATOR))
        place = {"start": len(ids), "end": len(ids) + len(span), "source_start": 0}
        chunk_id = None if chunk is None else passages[chunk]["chunk_id"]
        origin = {
            "root_id": None if chunk_id else table[root]["root_id"],
            "chunk_id": chunk_id,
            "doc_id": docs[doc]["doc_id"],
        }
        segments.append({"kind": kind, **origin, **place})
        ids.extend(span)

    for root in train:
        for t in POSITIONS:
            for kind, chunk in (("positive", _near(root, t)[0]), ("negative", _negative(root, t))):
                add(kind, root, chunk, tokens(passages[chunk]["text"]), passages[chunk]["doc"])
    for root in train:
        add("root", root, None, table[root]["input_ids"], table[root]["doc"])
    place_of_root = {s["root_id"]: s["start"] for s in segments if s["kind"] == "root"}
    end_of_chunk = {s["chunk_id"]: s["end"] for s in segments if s["kind"] == "positive"}
    dependencies = []
    for root in train:
        for t in POSITIONS:
            chunk_id, position = passages[_near(root, t)[0]]["chunk_id"], place_of_root[table[root]["root_id"]] + t
            entropies = {"entropy_before": 3.0, "entropy_after": 0.75, "gain": 0.75}
            pair = {"root_id": table[root]["root_id"], "t": t, "position": position, "chunk_id": chunk_id}
            dependencies.append({**pair, "distance": position - end_of_chunk[chunk_id], **entropies})
    return {
        "sample_id": digest_json([ids, segments]),
        "input_ids": ids,
        "length": len(ids),
        "segments": segments,
        "dependencies": dependencies,
    }


@dataclass(frozen=True)
class BuiltRound:
    """A published round and what it was published from."""

    home: Home
    version: str
    manifest: Manifest
    files: dict[str, Source]
    tables: Shards = field(repr=False)


def write_round(home: Home, tables: Shards, folder: str = "work/by-hand") -> dict[str, Source]:
    """Writes the tables as step outputs and returns the sources of a version's files."""
    files: dict[str, Source] = {"README.md": b"# A card\n", "config.json": canonical_json(CONFIG)}
    for name, shards in tables.items():
        for number, rows in enumerate(shards):
            uri = f"{folder}/{name}-{number}-{digest_json(rows)[:12]}.parquet"
            files[shard_name(name, number)] = write_table(home.path, uri, TABLES[name], rows)
    return files


def frames(home: Home, files: dict[str, Source]) -> dict[str, pl.DataFrame]:
    """Whole tables of what is going to be published."""
    found: dict[str, list[pl.DataFrame]] = {}
    for source in files.values():
        if isinstance(source, Ref):
            found.setdefault(source.table, []).append(pl.read_parquet(home / source.uri))
    return {name: pl.concat(parts) for name, parts in found.items()}


def build_round(
    home: Home,
    number: int = 1,
    *,
    change: Change | None = None,
    corpus: str = "c" * 64,
    policy: str = "d" * 64,
    parent_policy: str | None = None,
    parent_version: str | None = None,
    manifest_changes: Row | None = None,
) -> BuiltRound:
    """Writes and publishes a round; ``change`` edits its rows first, ``manifest_changes`` fields of its manifest."""
    tables = round_tables(number)
    if change is not None:
        change(tables)
    files = write_round(home, tables)
    whole = frames(home, files)
    manifest = Manifest(
        round=number,
        recipe="policylong",
        config=CONFIG,
        config_digest=digest_json(CONFIG),
        corpus=corpus,
        embedder="e" * 64,
        policy=policy,
        parent_policy=parent_policy,
        parent_version=parent_version,
        lag=0,
        files=entries_of(home, files),
        numeric=NumericEnvironment(device="cpu", dtype="float32", threads=1, versions={"torch": "2.13.0"}),
        funnel=funnel_counts(whole),
        tokens=token_counts(whole["samples"]),
        seeds={"campaign": 0},
        code_versions={"entropy": 1},
        figures={"mean_gain": 0.75},
    )
    if manifest_changes:
        manifest = manifest.model_copy(update=manifest_changes)
    return BuiltRound(home, publish_version(home, manifest, files), manifest, files, tables)


def make_corpus(home: Home) -> str:
    """Publishes the world's corpus and returns its digest."""
    rows = {
        "documents": documents(),
        "chunks": chunks(),
        "quarantine": [],
        "vectors": [{"chunk": n, "truncated": 0, "vector": [1.0, 0.0]} for n in range(len(chunks()))],
    }
    tables = {name: write_table(home.path, f"work/world/{name}.parquet", TABLES[name], rows[name]) for name in rows}
    tables["vectors-00000"] = tables.pop("vectors")
    return publish_corpus(home, {"embedder": {"digest": "e" * 64, "dimension": 2}}, tables)


def make_policy(home: Home, number: int, *, parent: str | None, trained_on: str | None) -> str:
    """Registers a policy of one weight whose tokenizer is the world's; returns its digest."""
    folder = home.folder(f"work/policy-{number}")
    write_json(folder / "config.json", {"model_type": "qwen2", "vocab_size": WORDS + 1})
    save_file({"weight": np.full((1,), number, np.float32)}, folder / "model.safetensors")
    vocabulary = {SEPARATOR: 0} | {f"w{word}": word + 1 for word in range(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SEPARATOR))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(" "), "removed")
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    digest = policy_digest(folder)
    add_policy(
        home, folder, digest, parent=parent, trained_on=trained_on, round=number - 1, files=policy_listing(folder)
    )
    return digest


def build_rounds(
    home: Home, count: int, *, change: Change | None = None, manifest_changes: Row | None = None
) -> list[BuiltRound]:
    """A campaign ``world`` of ``count`` rounds (1 or 2) and all that its audit needs; the last one gets the changes."""
    corpus = make_corpus(home)
    start_campaign(home, "world", CONFIG)
    rounds: list[BuiltRound] = []
    policy = make_policy(home, 1, parent=None, trained_on=None)
    parent_policy = parent_version = None
    for number in range(1, count + 1):
        last = number == count
        built = build_round(
            home,
            number,
            change=change if last else None,
            corpus=corpus,
            policy=policy,
            parent_policy=parent_policy,
            parent_version=parent_version,
            manifest_changes=manifest_changes if last else None,
        )
        rounds.append(built)
        parent_policy, parent_version = policy, built.version
        policy = make_policy(home, number + 1, parent=parent_policy, trained_on=parent_version)
        record = RoundRecord(round=number, version=built.version, policy=parent_policy, next_policy=policy)
        record_round(home, "world", record)
    return rounds


def version_folder(built: BuiltRound) -> Path:
    """Where a round was published."""
    return built.home / version_uri(built.version)
