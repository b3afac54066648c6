"""A finished round's tables under the names they have in the dataset version, and the manifest that makes them one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from importlib.util import find_spec

import polars as pl

from storage.digests import digest_json
from storage.home import Home
from storage.manifests import Manifest, NumericEnvironment, Relation, Source, entries_of, shard_name
from storage.policies import PolicyRecord, policy_record
from storage.refs import Ref
from storage.schemas import TABLES
from storage.tables import check_unchanged, read_tables
from storage.versions import load_manifest
from tasks.measurements.probe import ProbeSet, compare_probe, probe_of_version
from tasks.resources import PolicyInputs
from tasks.rounds.building import BuildConfig
from tasks.rounds.costs import round_costs
from tasks.rounds.figures import budget_figures, screened_figures, verdict_figures
from tasks.rounds.funnel import funnel_counts, token_counts
from tasks.rounds.recipe import Recipe
from tasks.rounds.round import Round
from tasks.screening.negative_verification import negative_figures

LIBRARIES = ("torch", "transformers", "tokenizers", "sentence-transformers", "qdrant-edge-py", "pyarrow", "numpy")


@dataclass(frozen=True, slots=True)
class Standing:
    """How the policy that screened stands to the one that is trained on the round, and the round before it."""

    relation: Relation = "on-policy"
    lag: int = 0
    previous_version: str | None = None


@dataclass(frozen=True, slots=True)
class RoundTables:
    """Refs of every table of a round, shard by shard; the probe set's shard comes last where there is one."""

    tables: Mapping[str, tuple[Ref, ...]]

    @classmethod
    def of(cls, this: Round) -> RoundTables:
        """The tables as the stages left them.

        Raises ``IntegrityError`` naming one that was changed since: figures and counts are taken from them next.
        """
        for refs in this.tables.values():
            for ref in refs:
                check_unchanged(this.home.path, ref)
        return cls({table: tuple(refs) for table, refs in this.tables.items()})

    def files(self) -> dict[str, Source]:
        """{name in the version: ref}."""
        return {shard_name(table, n): ref for table, refs in self.tables.items() for n, ref in enumerate(refs)}

    def scan(self, home: Home, table: str) -> pl.LazyFrame:
        """All shards of a table as a lazy frame, to be read in a stream."""
        return pl.scan_parquet([home / ref.uri for ref in self.tables[table]])

    def frame(self, home: Home, table: str) -> pl.DataFrame:
        """All shards of a table as one frame; empty when the recipe has no such table."""
        return read_tables(home.path, self.tables.get(table, ()), TABLES[table])


def round_figures(
    home: Home, tables: RoundTables, config: BuildConfig, previous_version: str | None, tokens: int
) -> dict[str, float]:
    """The round's figures, on all its roots and, against the round before, on the probe set.

    With a budget, ``shortfall_tokens`` are those that could not be filled; less than a sample is none.
    """
    figures: dict[str, float] = {}
    if config.tokens is not None:
        wanted = (config.samples or 0) * config.assembly.target_tokens
        figures |= {"budget_tokens": float(config.tokens), "shortfall_tokens": float(wanted - tokens)}
    if "verdicts" not in tables.tables:
        return figures
    verdicts, positions = tables.frame(home, "verdicts"), tables.frame(home, "positions")
    figures |= verdict_figures(verdicts, config.verification.epsilon)
    screened = tables.frame(home, "screened")
    if "passes" in tables.tables:
        figures |= budget_figures(verdicts, tables.frame(home, "passes"))
    figures |= screened_figures(screened) | negative_figures(tables.frame(home, "negatives"))
    if previous_version is not None and config.roots.probe_roots:
        rows = pl.col("root") < config.roots.probe_roots
        probe = ProbeSet(*(frame.filter(rows) for frame in (screened, positions, verdicts)))
        figures |= compare_probe(probe_of_version(home, previous_version)[1], probe).figures()
    return {name: round(value, 6) for name, value in figures.items()}


def round_manifest(this: Round, recipe: Recipe, tables: RoundTables, standing: Standing) -> Manifest:
    """The manifest of a round: what it was made from, with what, and what came out; no time, host or path."""
    home, config, policy = this.home, this.config, this.policy
    record = policy_record(home, policy.digest)
    screened = standing.relation != "unscreened"
    document = config.model_dump(mode="json")
    frames = {name: tables.scan(home, name) for name in tables.tables}
    tokens = token_counts(frames["samples"])
    return Manifest(
        round=this.number,
        recipe=config.recipe,
        config=document,
        config_digest=digest_json(document),
        corpus=this.corpus.digest,
        embedder=this.corpus.embedder_digest,
        policy=policy.digest,
        parent_policy=record.parent if screened else None,
        parent_version=_trained_on(home, record, standing.previous_version) if screened else None,
        previous_version=standing.previous_version,
        relation=standing.relation,
        lag=standing.lag,
        files=entries_of(home, tables.files()),
        numeric=NumericEnvironment(
            device=policy.device,
            dtype=policy.dtype,
            threads=policy.threads,
            packing=policy.packing,
            kernel=policy.kernel,
            versions={name: installed_version(name) for name in (*LIBRARIES, *_gpu_libraries(policy))},
        ),
        funnel=funnel_counts(frames),
        tokens=tokens,
        seeds=config.seeds,
        code_versions={step.name: step.code_version for step in recipe.steps} | this.code_versions,
        figures=round_figures(home, tables, config, standing.previous_version, tokens["total"])
        | round_costs(this, frames, tokens["total"]),
    )


def _gpu_libraries(policy: PolicyInputs) -> Iterator[str]:
    """What computed beside torch, as far as it is on this machine."""
    if policy.packing and policy.device == "cuda" and find_spec("flash_attn") is not None:
        yield "flash-attn"
    if policy.kernel == "triton" and find_spec("triton") is not None:
        yield "triton"


def _trained_on(home: Home, record: PolicyRecord, previous_version: str | None) -> str | None:
    """The version a policy was trained on; where several gave the same weights, the campaign's own, so that a round's
    version does not depend on what else the home holds.
    """
    at = previous_version if record.also_trained_on else None
    while at is not None:
        if at in (record.trained_on, *record.also_trained_on):
            return at
        at = load_manifest(home, at).previous_version
    return record.trained_on
