"""MLflow as the index of what was made: an experiment per campaign, a run per round and training, a model registry.

    tracking = Tracking(home)                      # sqlite in the home, or MLFLOW_TRACKING_URI, or a given URL
    run = tracking.round_run("demo", 1, version, policy=digest)
    tracking.log_round(run, params={...}, metrics={...}, artifacts=[path], dataset=TrackedDataset(...))
    number = tracking.register_policy("demo", folder, run, digest)
    tracking.set_current("demo", number)

Everything may be repeated: runs are found by their tags, metrics carry the run's start as their time, so the same value
is the same row. The manifest chain is the truth; what MLflow says can be made again from it. Runs are named explicitly:
MLflow's active run belongs to a thread.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from storage.digests import short
from storage.files import disk_errors
from storage.home import Home
from storage.moved_home import follow_home
from storage.tracked_calls import MlflowCalls
from storage.tracked_runs import (
    CAMPAIGN_TAG,
    CONTEXT_TAG,
    DIGEST_TAG,
    KIND_TAG,
    POLICY_TAG,
    ROUND_TAG,
    VERSION_TAG,
    TrackedDataset,
    TrackedRun,
    tracked_run,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["TrackedDataset", "TrackedRun", "Tracking", "tracking_uri"]

CURRENT = "current"
DATABASE = "mlflow/mlflow.db"
"""The embedded store, relative to the home."""
# Limits of MLflow's store and REST interface.
_PARAM_CHARACTERS, _PARAMS, _METRICS, _DATASET_DIGEST = 6000, 100, 1000, 36

Result = TypeVar("Result")


class Tracking:
    """One MLflow tracking store and registry.

    Every method raises ``ServiceError`` when the store does not answer, ``ResourceError`` when its disk is full,
    ``ConfigError`` for a URI that MLflow does not know and for credentials that a server refuses. How often it is
    asked is ``storage.tracked_calls``'s to say; with ``attempts``, that often.
    """

    def __init__(self, home: Home, uri: str | None = None, *, attempts: int | None = None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self.uri = tracking_uri(home, uri)
        self._artifacts = home.folder("mlflow/artifacts").as_uri() if self.uri.startswith("sqlite:") else None
        self._database = home / DATABASE if self.uri == _embedded_uri(home) else None
        self._try = MlflowCalls(self.uri, attempts)
        self._known: MlflowClient | None = None

    def round_run(self, campaign: str, round: int, version: str, *, policy: str) -> str:
        """The run of a round, made when it is not there."""
        return self._run_of("round", campaign, round, version, policy)

    def training_run(self, campaign: str, round: int, version: str, *, policy: str) -> str:
        """The run of the training on a round's version from ``policy``, made when it is not there."""
        return self._run_of("training", campaign, round, version, policy)

    def log_round(
        self,
        run_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        artifacts: Sequence[Path] = (),
        dataset: TrackedDataset | None = None,
        tags: Mapping[str, str] | None = None,
        series: Mapping[str, Sequence[tuple[int, float]]] | None = None,
    ) -> None:
        """Logs into a run of any kind and marks it finished.

        ``metrics`` are single numbers (NaN is left out), ``series`` are (step, value) pairs. A param that is there
        keeps the value it has; values are cut at 6,000 characters.
        """
        run = self._try(lambda: self._client.get_run(run_id))
        if dataset is not None:
            self._log_dataset(run_id, dataset)
        self._log_values(run, params or {}, metrics or {}, series or {})
        for name, value in (tags or {}).items():
            self._try(partial(self._client.set_tag, run_id, name, value))
        for path in artifacts:
            self._try(partial(self._client.log_artifact, run_id, str(path)))
        self._try(lambda: self._client.set_terminated(run_id, "FINISHED"))

    def register_policy(self, name: str, source: Path | str, run_id: str, digest: str) -> str:
        """The registry's version number of a policy under a model name, registered when it is not there."""
        uri = source.absolute().as_uri() if isinstance(source, Path) else source
        existing = self._try(lambda: list(self._client.search_registered_models(f"name = '{name}'")))
        if not existing:
            self._try(lambda: self._client.create_registered_model(name))
        versions = self._try(lambda: list(self._client.search_model_versions(f"name = '{name}'")))
        for version in versions:
            if version.tags.get(POLICY_TAG) == digest:
                return str(version.version)
        if self._artifacts is None and uri.startswith("file:"):
            # A server does not take paths of another machine; the digest says which folder is meant.
            uri = f"policylong:/policies/{digest}"
        made = self._try(lambda: self._client.create_model_version(name, uri, run_id=run_id, tags={POLICY_TAG: digest}))
        return str(made.version)

    def set_current(self, name: str, version: str) -> None:
        """Moves the alias ``current`` of a model to one of its versions."""
        self._try(lambda: self._client.set_registered_model_alias(name, CURRENT, version))

    def current(self, name: str) -> str | None:
        """The digest of the policy that the alias ``current`` of a model points at, or ``None``."""
        found = self._try(lambda: list(self._client.search_registered_models(f"name = '{name}'")))
        number = found[0].aliases.get(CURRENT) if found else None
        if number is None:
            return None
        version = self._try(lambda: self._client.get_model_version(name, str(number)))
        digest: str | None = version.tags.get(POLICY_TAG)
        return digest

    def find_version(self, version: str, *, kind: str = "round") -> TrackedRun | None:
        """The oldest run of a dataset version (``kind``: round or training) in any campaign; ``None`` without one."""
        experiments = self._try(lambda: {e.experiment_id: e.name for e in self._client.search_experiments()})
        runs = self._search(list(experiments), {VERSION_TAG: version, KIND_TAG: kind})
        return tracked_run(runs[0], experiments[runs[0].info.experiment_id]) if runs else None

    def ask(self, question: Callable[[MlflowClient], Result]) -> Result:
        """One question to MLflow's own client, asked again while the trouble may pass."""
        return self._try(lambda: question(self._client))

    def follow(self) -> None:
        """Lets the embedded store know where the home is now; to be called before anything is logged."""
        if self._database is not None and self._artifacts is not None and self._database.exists():
            follow_home(self._database, self._artifacts)

    def _run_of(self, kind: str, campaign: str, round: int, version: str, policy: str) -> str:
        self.follow()
        experiment = self._experiment(campaign)
        runs = self._search([experiment], {VERSION_TAG: version, KIND_TAG: kind, POLICY_TAG: policy})
        if runs:
            return str(runs[0].info.run_id)
        tags = {
            VERSION_TAG: version,
            KIND_TAG: kind,
            POLICY_TAG: policy,
            ROUND_TAG: str(round),
            CAMPAIGN_TAG: campaign,
        }
        made = self._try(
            lambda: self._client.create_run(experiment, tags=tags, run_name=f"{kind}-{round}-{short(version, 8)}")
        )
        return str(made.info.run_id)

    def _experiment(self, campaign: str) -> str:
        found = self._try(lambda: self._client.get_experiment_by_name(campaign))
        if found is not None:
            return str(found.experiment_id)
        return self._try(lambda: self._client.create_experiment(campaign, artifact_location=self._artifacts))

    def _search(self, experiments: list[str], tags: Mapping[str, str]) -> list[Run]:
        condition = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        return self._try(
            lambda: list(self._client.search_runs(experiments, condition, order_by=["attributes.start_time ASC"]))
        )

    def _log_dataset(self, run_id: str, dataset: TrackedDataset) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entity = Dataset(
            name=dataset.name,
            digest=dataset.digest[:_DATASET_DIGEST],
            source_type="local",
            source=json.dumps({"uri": dataset.source}),
            profile=json.dumps(dict(dataset.profile)) if dataset.profile else None,
        )
        tags = [InputTag(CONTEXT_TAG, dataset.context), InputTag(DIGEST_TAG, dataset.digest)]
        self._try(lambda: self._client.log_inputs(run_id, [DatasetInput(entity, tags)]))

    def _log_values(
        self,
        run: Run,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        series: Mapping[str, Sequence[tuple[int, float]]],
    ) -> None:
        from mlflow.entities import Metric, Param

        time, run_id = int(run.info.start_time), run.info.run_id
        points = [(name, float(value), 0) for name, value in sorted(metrics.items())]
        points += [(name, float(value), step) for name, pairs in sorted(series.items()) for step, value in pairs]
        new = [Param(k, _cut(str(v))) for k, v in sorted(params.items()) if k not in run.data.params]
        numbers = [Metric(name, value, time, step) for name, value, step in points if math.isfinite(value)]
        for some in _blocks(new, _PARAMS):
            self._try(partial(self._client.log_batch, run_id, params=some))
        for block in _blocks(numbers, _METRICS):
            self._try(partial(self._client.log_batch, run_id, metrics=block))

    @property
    def _client(self) -> MlflowClient:
        if self._known is None:
            from mlflow import MlflowClient

            if self._database is not None and not self._database.exists():
                self._try(partial(_make_database, self._database))
            self._known = MlflowClient(self.uri, self.uri)
        return self._known


def tracking_uri(home: Home, uri: str | None = None) -> str:
    """Where MLflow keeps its records: as given, else ``MLFLOW_TRACKING_URI``, else a sqlite file in the home."""
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI")
    return chosen or _embedded_uri(home)


def _embedded_uri(home: Home) -> str:
    return f"sqlite:///{(home.folder('mlflow') / Path(DATABASE).name).as_posix()}"


def _make_database(path: Path) -> None:
    """Runs MLflow's migrations in a file of another name: killed half way, they can't be carried on or run again."""
    from mlflow import MlflowClient

    with disk_errors(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=".migrating-") as folder:
        made = Path(folder) / path.name
        address = f"sqlite:///{made.as_posix()}"
        MlflowClient(address, address).search_experiments(max_results=1)
        os.replace(made, path)


def _cut(text: str) -> str:
    return text if len(text) <= _PARAM_CHARACTERS else text[: _PARAM_CHARACTERS - 1] + "…"


def _blocks(items: Sequence[Result], size: int) -> Iterator[list[Result]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
