"""What MLflow says about a whole campaign, as it stands there: for an audit, which believes none of it beforehand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from storage.tracked_runs import CAMPAIGN_TAG, CONTEXT_TAG, CURRENT, DIGEST_TAG, POLICY_TAG, VERSION_TAG
from storage.tracking import Tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_OURS = "policylong."
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """A dataset input of a run; ``digest`` is MLflow's own (36 characters), ``whole`` the one in our tag."""

    name: str
    digest: str
    whole: str
    context: str
    source: str
    profile: str


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run with all its tags of ours, params, last metrics and datasets."""

    run_id: str
    experiment: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    datasets: tuple[DatasetFacts, ...]


@dataclass(frozen=True, slots=True)
class ModelVersionFacts:
    """A version of a registered model: the policy it is, where its files lay, the run that made it."""

    number: str
    policy: str
    source: str
    run_id: str


@dataclass(frozen=True, slots=True)
class CampaignFacts:
    """Everything MLflow has on a campaign; ``current`` is the number that the alias points at."""

    runs: tuple[RunFacts, ...] = ()
    model: tuple[ModelVersionFacts, ...] = ()
    current: str | None = None
    series: dict[tuple[str, str], list[tuple[int, float]]] = field(default_factory=dict)
    """(run, metric) → its (step, value) pairs in order of steps, for the metrics that were asked for."""


def campaign_facts(tracking: Tracking, name: str, versions: Sequence[str], series: Sequence[str] = ()) -> CampaignFacts:
    """The runs of a campaign (by experiment, by tag, and by the versions they name), and its registered model.

    ``series`` names the metrics of training runs that are wanted step by step. Raises what ``Tracking`` raises.
    """
    experiments = tracking.ask(lambda client: {e.experiment_id: e.name for e in client.search_experiments()})
    own = [number for number, called in experiments.items() if called == name]
    found: dict[str, RunFacts] = {}
    conditions = [(list(experiments), f"tags.`{CAMPAIGN_TAG}` = '{name}'"), (own, "")]
    conditions += [(list(experiments), f"tags.`{VERSION_TAG}` = '{version}'") for version in versions]
    for where, condition in conditions:
        if where:
            for run in _runs(tracking, where, condition):
                found.setdefault(run.info.run_id, _facts(run, experiments[run.info.experiment_id]))
    # A version may be the same in two campaigns: a run that another one claims in so many words is not this one's.
    runs = [run for run in found.values() if name in (run.experiment, run.tags.get(CAMPAIGN_TAG))]
    histories = {
        (run.run_id, metric): tracking.ask(partial(_history, run_id=run.run_id, metric=metric))
        for run in runs
        for metric in series
        if metric in run.metrics
    }
    models = tracking.ask(lambda client: list(client.search_registered_models(f"name = '{name}'")))
    versions_of = tracking.ask(lambda client: list(client.search_model_versions(f"name = '{name}'")))
    return CampaignFacts(
        runs=tuple(runs),
        model=tuple(
            ModelVersionFacts(str(v.version), v.tags.get(POLICY_TAG, ""), str(v.source or ""), str(v.run_id or ""))
            for v in sorted(versions_of, key=lambda v: int(v.version))
        ),
        current=str(models[0].aliases[CURRENT]) if models and CURRENT in models[0].aliases else None,
        series=histories,
    )


def runs_of_version(tracking: Tracking, version: str) -> list[RunFacts]:
    """Every run that names a version in its tag, whatever its campaign, oldest first."""
    experiments = tracking.ask(lambda client: {e.experiment_id: e.name for e in client.search_experiments()})
    runs = _runs(tracking, list(experiments), f"tags.`{VERSION_TAG}` = '{version}'")
    return [_facts(run, experiments[run.info.experiment_id]) for run in runs]


def _runs(tracking: Tracking, experiments: list[str], condition: str) -> Iterator[Run]:
    token: str | None = None
    while True:
        page = tracking.ask(
            partial(_page, experiments=experiments, condition=condition, token=token),
        )
        yield from page[0]
        token = page[1]
        if not token:
            return


def _page(
    client: MlflowClient, *, experiments: list[str], condition: str, token: str | None
) -> tuple[list[Run], str | None]:
    order = ["attributes.start_time ASC"]
    found = client.search_runs(experiments, condition, max_results=_PAGE, order_by=order, page_token=token)
    return list(found), found.token or None


def _history(client: MlflowClient, *, run_id: str, metric: str) -> list[tuple[int, float]]:
    return sorted((int(point.step), float(point.value)) for point in client.get_metric_history(run_id, metric))


def _facts(run: Run, experiment: str) -> RunFacts:
    return RunFacts(
        run_id=run.info.run_id,
        experiment=experiment,
        status=str(run.info.status),
        tags={name: value for name, value in run.data.tags.items() if name.startswith(_OURS)},
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        datasets=tuple(_datasets(run)),
    )


def _datasets(run: Run) -> Iterator[DatasetFacts]:
    for entry in run.inputs.dataset_inputs if run.inputs is not None else ():
        tags = {tag.key: tag.value for tag in entry.tags}
        yield DatasetFacts(
            name=entry.dataset.name,
            digest=entry.dataset.digest,
            whole=tags.get(DIGEST_TAG, ""),
            context=tags.get(CONTEXT_TAG, ""),
            source=_uri(entry.dataset.source),
            profile=entry.dataset.profile or "",
        )


def _uri(source: str) -> str:
    """The URI in a dataset's source, or the text itself where it is not what policylong writes."""
    try:
        return str(json.loads(source)["uri"])
    except (ValueError, KeyError, TypeError):
        return source
