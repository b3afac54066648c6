"""A finished round's tables under the names they have in the dataset version, and the manifest that makes them one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version

import polars as pl

from storage.corpora import Corpus
from storage.digests import digest_json
from storage.home import Home
from storage.manifests import Manifest, NumericEnvironment, Source, entries_of, shard_name
from storage.policies import policy_record
from storage.refs import Ref
from storage.schemas import POSITIONS, TABLES, VERDICTS
from storage.tables import read_tables
from storage.versions import load_manifest, table_refs
from tasks.assembly import assemble
from tasks.building import BuildConfig
from tasks.entropy import screen_entropy
from tasks.figures import probe_figures, screened_figures, verdict_figures
from tasks.funnel import funnel_counts, token_counts
from tasks.negatives import find_negatives
from tasks.resources import PolicyInputs
from tasks.retrieval import retrieve
from tasks.roots import cut_roots
from tasks.verification import verify

LIBRARIES = ("torch", "transformers", "tokenizers", "sentence-transformers", "qdrant-edge-py", "pyarrow", "numpy")
STEPS = (cut_roots, screen_entropy, retrieve, verify, find_negatives, assemble)

Shards = Sequence[Mapping[str, Ref]]


@dataclass(frozen=True, slots=True)
class RoundTables:
    """Refs of every table of a round, shard by shard; the probe set's shard comes last where there is one."""

    tables: Mapping[str, tuple[Ref, ...]]

    @classmethod
    def gather(
        cls,
        roots: Ref,
        screened: Shards,
        candidates: Shards,
        verdicts: Shards,
        negatives: Shards,
        assembled: Mapping[str, Ref],
    ) -> RoundTables:
        """The tables as the steps returned them."""
        shards: dict[str, list[Ref]] = {"roots": [roots]}
        for refs in (*screened, *candidates, *verdicts, *negatives, assembled):
            for ref in refs.values():
                shards.setdefault(ref.table, []).append(ref)
        return cls({table: tuple(refs) for table, refs in shards.items()})

    def files(self) -> dict[str, Source]:
        """{name in the version: ref}."""
        return {shard_name(table, n): ref for table, refs in self.tables.items() for n, ref in enumerate(refs)}

    def scan(self, home: Home, table: str) -> pl.LazyFrame:
        """All shards of a table as a lazy frame, to be read in a stream."""
        return pl.scan_parquet([home / ref.uri for ref in self.tables[table]])

    def frame(self, home: Home, table: str) -> pl.DataFrame:
        """All shards of a table as one frame."""
        return read_tables(home.path, self.tables.get(table, ()), TABLES[table])


def round_figures(home: Home, tables: RoundTables, config: BuildConfig, parent_version: str | None) -> dict[str, float]:
    """The round's figures, on all its roots and, against the round before, on the probe set."""
    verdicts, positions = tables.frame(home, "verdicts"), tables.frame(home, "positions")
    figures = verdict_figures(verdicts, config.verification.epsilon)
    figures |= screened_figures(tables.frame(home, "screened"))
    if parent_version is not None:
        probe = pl.col("root") < config.roots.probe_roots
        parent = load_manifest(home, parent_version)
        before = {
            schema.name: read_tables(home.path, table_refs(parent_version, parent, schema.name), schema).filter(probe)
            for schema in (VERDICTS, POSITIONS)
        }
        figures |= probe_figures(
            verdicts.filter(probe), positions.filter(probe), before["verdicts"], before["positions"]
        )
    return {name: round(value, 6) for name, value in figures.items()}


def round_manifest(
    home: Home,
    number: int,
    config: BuildConfig,
    corpus: Corpus,
    policy: PolicyInputs,
    parent_version: str | None,
    tables: RoundTables,
) -> Manifest:
    """The manifest of a round: what it was made from, with what, and what came out; no time, host or path."""
    record = policy_record(home, policy.digest)
    resolved = config.model_dump(mode="json")
    frames = {name: tables.scan(home, name) for name in tables.tables}
    return Manifest(
        round=number,
        recipe=config.recipe,
        config=resolved,
        config_digest=digest_json(resolved),
        corpus=corpus.digest,
        embedder=corpus.embedder_digest,
        policy=policy.digest,
        parent_policy=record.parent,
        parent_version=parent_version,
        lag=0,
        files=entries_of(home, tables.files()),
        numeric=NumericEnvironment(
            device=policy.device,
            dtype=policy.dtype,
            threads=policy.threads,
            versions={name: installed_version(name) for name in LIBRARIES},
        ),
        funnel=funnel_counts(frames),
        tokens=token_counts(frames["samples"]),
        seeds=config.seeds,
        code_versions={step.name: step.code_version for step in STEPS},
        figures=round_figures(home, tables, config, parent_version),
    )
