"""The measuring flow: what is asked about a round beside its data, after the training on it.

attributable gain at length · the matrix of rounds under policies · nulls of the probe set
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.build import BuildInputs, build_round
from flows.presets import Preset
from flows.train import train_round
from storage.campaigns import start_campaign
from storage.corpora import open_corpus
from storage.home import Home
from storage.policies import policy_record
from storage.tracking import Tracking
from storage.versions import load_manifest
from tasks.measurements.measures import (
    attribution_figures,
    matrix_figures,
    measures_markdown,
    null_figures,
    standard_build,
)
from tasks.resources import release


@flow(name="measure", flow_run_name="measure {label}")
def measure_round(
    home_path: str, preset: Preset, versions: list[str], policies: list[str], label: str
) -> dict[str, float]:
    """The figures of the newest of ``versions``; ``policies[k]`` is what round k + 1 was trained from.

    Every part is recorded by itself, so a second call reads what the first one measured. A round without dependencies
    has nothing to measure.
    """
    home, config = Home.open(Path(home_path)), preset.measures
    version, before, after = versions[-1], policies[-2], policies[-1]
    manifest = load_manifest(home, version)
    if not config.any or not manifest.names("verdicts"):
        return {}
    release()
    figures: dict[str, float] = {}
    if config.attribution.enabled:
        figures |= attribution_figures(home, version, before, after, config.attribution)
    if config.matrix.enabled:
        figures |= matrix_figures(home, versions, policies, config.matrix)
    if config.nulls and preset.build.roots.probe_roots:
        standard = _trained_on_standard(home_path, preset, version, before, label)
        figures |= null_figures(
            home,
            open_corpus(home, manifest.corpus),
            before,
            standard,
            preset.build,
            embedder=preset.corpus.embedder,
            index=preset.index,
        )
    release()
    create_markdown_artifact(measures_markdown(figures, label), key="round-measures", description=label)
    tracking = Tracking(home)
    run = tracking.round_run(preset.campaign.name, manifest.round, version, policy=manifest.policy)
    tracking.log_round(run, metrics=figures)
    return figures


def _trained_on_standard(home_path: str, preset: Preset, version: str, policy: str, label: str) -> str:
    """The policy that the same training gives on as many tokens of standard data."""
    home = Home.open(Path(home_path))
    manifest = load_manifest(home, version)
    name = f"{preset.campaign.name}-null"
    start_campaign(home, name, {"null_of": preset.campaign.name}, current=False)
    inputs = BuildInputs(
        campaign=name,
        round=manifest.round,
        corpus=manifest.corpus,
        policy=policy,
        screener=_base_of(home, policy),
        embedder=preset.corpus.embedder,
        index=preset.index,
    )
    standard = build_round(home_path, inputs, standard_build(preset.build, manifest))
    trained = train_round(home_path, standard, policy, preset.training, label=f"{label} null", campaign=name)
    return str(trained["policy"])


def _base_of(home: Home, policy: str) -> str:
    """The base model that a policy descends from."""
    record = policy_record(home, policy)
    while record.parent is not None:
        record = policy_record(home, record.parent)
    return record.digest
