"""What MLflow is told and knows about a run: its tags, its datasets, its numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Run

VERSION_TAG = "policylong.version"
POLICY_TAG = "policylong.policy"
NEXT_POLICY_TAG = "policylong.next_policy"
KIND_TAG = "policylong.kind"
ROUND_TAG = "policylong.round"
CAMPAIGN_TAG = "policylong.campaign"
DIGEST_TAG = "policylong.digest"
CURRENT = "current"
CONTEXT_TAG = "mlflow.data.context"


@dataclass(frozen=True, slots=True)
class TrackedDataset:
    """A dataset version as an input of a run; MLflow keeps 36 characters of ``digest``, the whole is in a tag."""

    name: str
    digest: str
    source: str
    """URI of the version's folder."""
    context: str = "build"
    """``build`` in the run that made it, ``training`` in the run that consumed it."""
    profile: Mapping[str, int | float] = field(default_factory=dict)
    """Numbers to show beside it: samples, tokens."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What MLflow knows about a run."""

    run_id: str
    experiment: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    datasets: tuple[TrackedDataset, ...]
    artifact_uri: str


def tracked_run(run: Run, experiment: str) -> TrackedRun:
    """A run of MLflow as a record of ours."""
    return TrackedRun(
        run_id=run.info.run_id,
        experiment=experiment,
        status=run.info.status,
        tags={k: v for k, v in run.data.tags.items() if k.startswith("policylong.")},
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        datasets=tuple(_datasets(run)),
        artifact_uri=run.info.artifact_uri,
    )


def _datasets(run: Run) -> Iterator[TrackedDataset]:
    for entry in run.inputs.dataset_inputs if run.inputs is not None else ():
        tags = {tag.key: tag.value for tag in entry.tags}
        yield TrackedDataset(
            name=entry.dataset.name,
            digest=tags.get(DIGEST_TAG, entry.dataset.digest),
            source=str(json.loads(entry.dataset.source).get("uri", "")),
            context=tags.get(CONTEXT_TAG, ""),
            profile=json.loads(entry.dataset.profile) if entry.dataset.profile else {},
        )
