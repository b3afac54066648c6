"""Publishing a round: dataset version, plots, MLflow run, campaign record, in this order, as one transaction that can
be repeated.

    version = publish_round(home, "quickstart", manifest, files, tracking=Tracking(home))

Each part is the same when it is done twice, and the campaign record is written last: a process killed anywhere leaves
a round that the next call finishes, and a round that is recorded is published whole. Nothing is rolled back, because
nothing that was done is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from storage.campaigns import RoundRecord, load_campaign, record_round
from storage.digests import canonical_json, short
from storage.home import Home
from storage.manifests import Manifest, Source, entries_of
from storage.schemas import TABLES
from storage.tables import read_tables
from storage.tracking import TrackedDataset, Tracking
from storage.versions import MANIFEST, publish_version, table_refs, version_uri
from tasks.rounds.dataset_card import README, dataset_card
from tasks.rounds.plots import PLOTS, write_plots

CONFIG = "config.json"
_PLOTTED = ("screened", "positions", "verdicts")


def publish_round(
    home: Home,
    campaign: str,
    manifest: Manifest,
    files: Mapping[str, Source],
    *,
    tracking: Tracking | None,
    measures: Mapping[str, float] | None = None,
) -> str:
    """Publishes a round of a campaign that was started and returns its dataset version.

    ``manifest`` and ``files`` name the tables; card and configuration are added here. ``measures`` are numbers that
    are no part of the round's identity (seconds); they go to MLflow and the campaign record. Without ``tracking``
    nothing goes to MLflow.

    Raises what ``publish_version`` raises, ``ServiceError`` when MLflow does not answer, ``IntegrityError`` when the
    campaign has another version for this round.
    """
    manifest, files = with_documents(home, manifest, files)
    version = publish_version(home, manifest, files)
    record = RoundRecord(
        round=manifest.round,
        version=version,
        policy=manifest.policy,
        figures=round_numbers(manifest) | dict(measures or {}),
    )
    known = load_campaign(home, campaign).find(manifest.round)
    whole = known is not None and known.version == version
    if not whole or missing_plots(home, version):
        plot_round(home, version, manifest)
    if tracking is not None and not whole:
        track_round(home, tracking, campaign, version, manifest, measures or {})
    record_round(home, campaign, record)
    return version


def with_documents(home: Home, manifest: Manifest, files: Mapping[str, Source]) -> tuple[Manifest, dict[str, Source]]:
    """Manifest and files with README.md (the dataset card) and config.json (the configuration) added."""
    documents: dict[str, Source] = {
        README: dataset_card(manifest),
        CONFIG: canonical_json(manifest.model_dump(mode="json")["config"]),
    }
    entries = {name: entry for name, entry in manifest.files.items() if name not in documents}
    return (
        manifest.model_copy(update={"files": {**entries, **entries_of(home, documents)}}),
        {**{name: source for name, source in files.items() if name not in documents}, **documents},
    )


def report_folder(home: Home, version: str) -> Path:
    """Where a version's plots lie: outside of the version, because they can be made again from it."""
    return home / f"reports/{short(version, 16)}"


def missing_plots(home: Home, version: str) -> bool:
    """Whether a plot of the version is not there."""
    return not all((report_folder(home, version) / name).is_file() for name in PLOTS)


def plot_round(home: Home, version: str, manifest: Manifest) -> list[Path]:
    """Draws a published version's plots from its tables."""
    tables: dict[str, pl.LazyFrame] = {}
    for name in _PLOTTED:
        shards = [home / ref.uri for ref in table_refs(version, manifest, name)]
        tables[name] = pl.scan_parquet(shards) if shards else read_tables(home.path, (), TABLES[name]).lazy()
    epsilon = manifest.config.get("verification", {}).get("epsilon")
    return write_plots(report_folder(home, version), tables, f"Round {manifest.round}", epsilon)


def round_numbers(manifest: Manifest) -> dict[str, float]:
    """A round's counts and figures in one flat mapping: funnel, ``tokens``, figures."""
    return {**manifest.funnel, "tokens": manifest.tokens.get("total", 0), **manifest.figures}


def track_round(
    home: Home, tracking: Tracking, campaign: str, version: str, manifest: Manifest, measures: Mapping[str, float]
) -> str:
    """Logs a published version as the MLflow run of its round; returns the run's id."""
    folder = home / version_uri(version)
    run = tracking.round_run(campaign, manifest.round, version, policy=manifest.policy)
    tokens = {f"tokens_{name}": float(number) for name, number in manifest.tokens.items()}
    tracking.log_round(
        run,
        params={
            "round": manifest.round,
            "recipe": manifest.recipe,
            "corpus": manifest.corpus,
            "embedder": manifest.embedder,
            "policy": manifest.policy,
            "parent_policy": manifest.parent_policy,
            "parent_version": manifest.parent_version,
            "lag": manifest.lag,
            "config_digest": manifest.config_digest,
            **flattened(manifest.config),
        },
        metrics={**round_numbers(manifest), **tokens, **measures},
        artifacts=[*(folder / name for name in (MANIFEST, README, CONFIG)), *plots_of(home, version)],
        dataset=TrackedDataset(
            name=f"{campaign}-round-{manifest.round}",
            digest=version,
            source=folder.as_uri(),
            profile={"samples": manifest.funnel.get("samples", 0), "tokens": manifest.tokens.get("total", 0)},
        ),
    )
    return run


def plots_of(home: Home, version: str) -> list[Path]:
    """The version's plots that are there."""
    return [path for name in PLOTS if (path := report_folder(home, version) / name).is_file()]


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as ``section.key: value``."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
