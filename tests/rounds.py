"""Complete small rounds, published through the product's own code, from the tables of ``tests.world_by_hand``.

built = build_round(home)                       # tables and version; corpus and policy are digests of nothing
built = build_rounds(home, 2)[-1]               # with corpus, policies, parents and campaign, as an audit wants
built = build_round(home, change=my_change)     # ``change(tables)`` edits the rows before they are written and signed
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

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
from tasks.rounds.funnel import funnel_counts, token_counts
from tests.world_by_hand import CONFIG, SEPARATOR, WORDS, Change, Row, Shards, chunks, documents, round_tables


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
            uri = f"{folder}/{name}-{number}-{digest_text(repr(rows))[:12]}.parquet"
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
