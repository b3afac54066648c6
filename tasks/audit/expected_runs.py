"""What the MLflow runs of a campaign have to say, given its manifests and training records; and where one differs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from storage.digests import short
from storage.manifests import Manifest
from storage.policies import PolicyRecord
from storage.tracked_campaigns import CampaignFacts, DatasetFacts, ModelVersionFacts, RunFacts
from storage.tracked_runs import CAMPAIGN_TAG, KIND_TAG, NEXT_POLICY_TAG, POLICY_TAG, ROUND_TAG, VERSION_TAG
from storage.versions import version_uri
from tasks.audit.memberships import Member
from tasks.audit.trainings import TrainingRecord
from tasks.rounds.publishing import flattened, round_numbers
from tasks.training.tracking import dataset_name

SERIES = ("loss", "learning_rate", "gradient_norm")
_CONTEXTS = {"round": "build", "training": "training"}
_DATASET_DIGEST, _PARAM = 36, 6000
_IDENTITY = (VERSION_TAG, KIND_TAG, ROUND_TAG, POLICY_TAG)


@dataclass(frozen=True, slots=True)
class ExpectedRun:
    """One run. ``params`` is None when they are not known; of ``metrics`` others may be there."""

    kind: str
    version: str
    tags: dict[str, str]
    dataset: str
    params: dict[str, str] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    series: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    profile: dict[str, int] | None = None


def expected_round(campaign: str, member: Member, manifest: Manifest) -> ExpectedRun:
    """The run of a round, as ``tasks.rounds.publishing`` logs it."""
    version = member.record.version
    params = {
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
    }
    tokens = {f"tokens_{name}": float(number) for name, number in manifest.tokens.items()}
    return ExpectedRun(
        kind="round",
        version=version,
        tags=_tags("round", campaign, manifest.round, version, manifest.policy),
        dataset=dataset_name(campaign, manifest.round),
        params={name: _cut(str(value)) for name, value in params.items()},
        metrics={**round_numbers(manifest), **tokens},
        profile={"samples": manifest.funnel.get("samples", 0), "tokens": manifest.tokens.get("total", 0)},
    )


def expected_training(campaign: str, member: Member, training: TrainingRecord | None) -> ExpectedRun | None:
    """The run of the training on a round, as ``tasks.training.tracking`` logs it; ``None`` when nothing says that there
    was one.
    """
    number, version = member.record.round, member.record.version
    if training is None:
        if member.record.next_policy is None or member.trained is None:
            return None
        tags = _tags("training", campaign, number, version, member.trained)
        tags[NEXT_POLICY_TAG] = member.record.next_policy
        return ExpectedRun("training", version, tags, dataset_name(campaign, number))
    result = training.result
    metrics = {
        "seconds": result.seconds,
        "tokens": float(result.tokens),
        "samples": float(result.samples),
        "first_loss": result.first_loss,
        "last_loss": result.last_loss,
    }
    columns = [[(step, values[place]) for step, *values in result.steps] for place in range(len(SERIES))]
    series = {name: points for name, points in zip(SERIES, columns, strict=True) if points}
    metrics |= {name: points[-1][1] for name, points in series.items()}
    tags = _tags("training", campaign, result.round, version, result.parent)
    params = training.params
    return ExpectedRun(
        kind="training",
        version=version,
        tags={**tags, NEXT_POLICY_TAG: result.policy},
        dataset=dataset_name(campaign, result.round),
        params=None if params is None else {name: _cut(str(value)) for name, value in params.items()},
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
        series=series,
    )


def _tags(kind: str, campaign: str, number: int, version: str, policy: str) -> dict[str, str]:
    return {
        VERSION_TAG: version,
        KIND_TAG: kind,
        POLICY_TAG: policy,
        ROUND_TAG: str(number),
        CAMPAIGN_TAG: campaign,
    }


def match_runs(expected: Sequence[ExpectedRun], runs: Sequence[RunFacts]) -> tuple[dict[int, RunFacts], list[RunFacts]]:
    """Which run is which: {place in ``expected``: run}, and those that are none of them.

    A run is the expected one it shares most of version, kind, round, policy and dataset's context with, so that one
    that was edited is still known. Two of five are the least.
    """
    chosen: dict[int, tuple[int, RunFacts]] = {}
    others: list[RunFacts] = []
    for run in runs:
        score, place = max(((_alike(e, run), -n) for n, e in enumerate(expected)), default=(0, 0))
        if score < 2:
            others.append(run)
        elif -place not in chosen or chosen[-place][0] < score:
            others += [chosen[-place][1]] if -place in chosen else []
            chosen[-place] = (score, run)
        else:
            others.append(run)
    return {place: run for place, (_, run) in chosen.items()}, others


def _alike(expected: ExpectedRun, run: RunFacts) -> int:
    context = any(dataset.context == _CONTEXTS[expected.kind] for dataset in run.datasets)
    return context + sum(run.tags.get(tag) == expected.tags[tag] for tag in _IDENTITY)


def run_differences(expected: ExpectedRun, run: RunFacts, facts: CampaignFacts) -> list[str]:
    """Everything in which a run differs from what it has to say, each with the name of the tag, param or metric."""
    wrong = [] if run.status == "FINISHED" else [f"status is {run.status}, expected FINISHED"]
    if run.experiment != expected.tags[CAMPAIGN_TAG]:
        wrong.append(f"experiment is {run.experiment}, expected {expected.tags[CAMPAIGN_TAG]}")
    wrong += _different("tag", expected.tags, run.tags)
    if expected.params is not None:
        wrong += _different("param", expected.params, run.params)
    known = {name: value for name, value in run.metrics.items() if name in expected.metrics}
    wrong += _different("metric", expected.metrics, known)
    for name, points in expected.series.items():
        if facts.series.get((run.run_id, name)) != points:
            wrong.append(f"metric {name} has other steps or values than the training record")
    return wrong + _dataset_differences(expected, run.datasets)


def _dataset_differences(expected: ExpectedRun, datasets: Sequence[DatasetFacts]) -> list[str]:
    if len(datasets) != 1:
        return [f"it has {len(datasets)} datasets, expected one"]
    (dataset,) = datasets
    pairs = {
        "name": (dataset.name, expected.dataset),
        "digest": (dataset.digest, expected.version[:_DATASET_DIGEST]),
        "policylong.digest": (dataset.whole, expected.version),
        "context": (dataset.context, _CONTEXTS[expected.kind]),
    }
    wrong = [
        f"dataset {what} is {found or 'nothing'}, expected {wanted}"
        for what, (found, wanted) in pairs.items()
        if found != wanted
    ]
    # The path before it is that of the machine and time it was logged at: a home may be moved.
    end = f"/{version_uri(expected.version)}"
    if not (dataset.source.startswith("file:") and dataset.source.endswith(end)):
        wrong.append(f"dataset source is {dataset.source}, expected file:…{end}")
    if expected.profile is not None and _profile(dataset) != expected.profile:
        wrong.append(f"dataset profile is {dataset.profile}, expected {json.dumps(expected.profile)}")
    return wrong


def _profile(dataset: DatasetFacts) -> Any:
    try:
        return json.loads(dataset.profile)
    except ValueError:
        return None


def model_differences(entry: ModelVersionFacts, record: PolicyRecord | None, run: RunFacts | None) -> list[str]:
    """Where a version of the registered model differs from the policy it names; ``run`` is that policy's training."""
    if record is None:
        return [f"tag {POLICY_TAG} is {entry.policy or 'nothing'}, which is no policy of this home"]
    wrong = []
    places = (f"/{record.folder}", f"/policies/{short(record.digest, 16)}", f"/policies/{record.digest}")
    if not entry.source.endswith(places):
        wrong.append(f"source is {entry.source}, expected …{places[0]}")
    if run is not None and entry.run_id != run.run_id:
        wrong.append(f"run is {entry.run_id or 'nothing'}, expected {run.run_id}")
    return wrong


def _different(what: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in sorted(expected.keys() | found.keys()):
        there, wanted = found.get(name, "nothing"), expected.get(name, "nothing")
        if there != wanted:
            lines.append(f"{what} {name} is {there}, expected {wanted}")
    return lines


def _cut(text: str) -> str:
    """MLflow's limit, as ``storage.tracking`` keeps to it."""
    return text if len(text) <= _PARAM else text[: _PARAM - 1] + "…"
