"""Audit of MLflow: the runs of rounds and trainings, their datasets, the registered policies and the alias ``current``.

MLflow is an index of what the manifests say. A run that is gone was pruned, which proves nothing: *not-checkable*. A
run that is there and says something else fails, with the name of every tag, param, metric or dataset that differs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from storage.digests import short
from storage.errors import ConfigError, IntegrityError, ServiceError
from storage.files import read_json
from storage.findings import Finding, failed, not_checkable, passed
from storage.home import Home
from storage.manifests import Manifest
from storage.tracked_campaigns import CampaignFacts, RunFacts, campaign_facts, runs_of_version
from storage.tracked_runs import KIND_TAG, NEXT_POLICY_TAG, POLICY_TAG, ROUND_TAG, VERSION_TAG
from storage.tracking import DATABASE, Tracking
from tasks.audit.expected_runs import (
    SERIES,
    ExpectedRun,
    expected_round,
    expected_training,
    match_runs,
    model_differences,
    run_differences,
)
from tasks.audit.looked import Looked, form_problem
from tasks.audit.memberships import Members, manifest_at_hand, naming
from tasks.audit.policies import known_policies
from tasks.audit.trainings import LOGGED, TrainingRecord, log_digest, logged, trainings

URI = "MLFLOW_TRACKING_URI"
RUN = "MLflow run"
TRAINING_RUN = "MLflow training run"
REGISTRY = "MLflow registry"
ALIAS = "MLflow alias current"
LOG = "training as it was logged"
Answer = TypeVar("Answer")
_CHECKS = {"round": RUN, "training": TRAINING_RUN}


@dataclass(frozen=True, slots=True)
class Tracked:
    """A campaign in MLflow beside what is expected of it."""

    members: Members
    facts: CampaignFacts
    expected: tuple[ExpectedRun, ...]
    found: dict[int, RunFacts]
    others: tuple[RunFacts, ...]

    def training_run(self, policy: str) -> RunFacts | None:
        """The run of the training that gave a policy."""
        for place, expected in enumerate(self.expected):
            if expected.tags.get(NEXT_POLICY_TAG) == policy:
                return self.found.get(place)
        return None


def audit_tracking(looked: Looked, version: str, manifest: Manifest) -> Iterator[Finding]:
    """The MLflow runs of a round and of the training on it, in every campaign that names the version."""
    campaigns = naming(looked, version)
    if not campaigns:
        yield _without_campaign(looked, version)
    for members in campaigns:
        tracked = tracked_campaign(looked, members)
        if isinstance(tracked, Finding):
            yield tracked
            continue
        name = members.campaign.name
        for place, expected in enumerate(tracked.expected):
            if expected.version != version:
                continue
            check, run = _CHECKS[expected.kind], tracked.found.get(place)
            if run is None:
                yield not_checkable(check, f"MLflow has none of campaign {name} for this version")
                continue
            wrong = run_differences(expected, run, tracked.facts)
            where = f"run {run.run_id} of experiment {run.experiment}"
            yield failed(check, f"{where}: {'; '.join(wrong)}") if wrong else passed(check, where)
        yield from _logs(looked, tracked, version)


def _without_campaign(looked: Looked, version: str) -> Finding:
    store = _store(looked)
    if isinstance(store, Finding):
        return store
    runs = _asked(lambda: runs_of_version(store, version))
    if isinstance(runs, Finding):
        return runs
    manifest = manifest_at_hand(looked, version)
    if not runs or manifest is None:
        return not_checkable(RUN, "MLflow has no run of this version")
    wanted = {POLICY_TAG: manifest.policy, ROUND_TAG: str(manifest.round)}
    for run in runs:
        wrong = [f"tag {tag} is {run.tags.get(tag)}, expected {value}" for tag, value in wanted.items()]
        if run.tags.get(KIND_TAG) == "round" and any(run.tags.get(tag) != value for tag, value in wanted.items()):
            return failed(RUN, f"run {run.run_id} of experiment {run.experiment}: {'; '.join(wrong)}")
    return passed(RUN, f"{len(runs)} name this version; no campaign of this home does")


def audit_registry(looked: Looked, members: Members) -> Iterator[Finding]:
    """The campaign's registered model, its alias, and the runs that are no round's and no training's."""
    tracked = tracked_campaign(looked, members)
    if isinstance(tracked, Finding):
        yield tracked.model_copy(update={"check": REGISTRY})
        return
    name, known = members.campaign.name, known_policies(looked.home).records
    versions = {member.record.version for member in members.rounds}
    for run in tracked.others:
        version = run.tags.get(VERSION_TAG, "nothing")
        if version not in versions:
            says = f"tag {VERSION_TAG} is {version}, which is no round of {name}"
            yield failed(RUN, f"run {run.run_id} of experiment {run.experiment}: {says}")
    if not tracked.facts.model:
        yield not_checkable(REGISTRY, f"MLflow has no registered model {name}")
        return
    for entry in tracked.facts.model:
        record = known.get(entry.policy)
        wrong = model_differences(entry, record, tracked.training_run(entry.policy))
        what = f"version {entry.number} of model {name}"
        said = f"{what} is policy {short(entry.policy)}"
        yield failed(REGISTRY, f"{what}: {'; '.join(wrong)}") if wrong else passed(REGISTRY, said)
    yield _alias(tracked)


def _alias(tracked: Tracked) -> Finding:
    """``current`` is the policy that the campaign's last finished training gave."""
    name, facts = tracked.members.campaign.name, tracked.facts
    trained = [member for member in tracked.members.rounds if member.record.next_policy]
    at = next((entry for entry in facts.model if entry.number == facts.current), None)
    if at is None:
        return failed(
            ALIAS, f"alias current of model {name} is {facts.current or 'missing'}, which is no version of it"
        )
    last = tracked.members.rounds[-1] if tracked.members.rounds else None
    wanted = trained[-1].record.next_policy if trained else None
    if last is not None and last.record.next_policy is None:
        # The training of the last round may be registered while its evaluation still runs.
        run = tracked.training_run(at.policy)
        if at.policy != wanted and run is not None and run.tags.get(VERSION_TAG) == last.record.version:
            return passed(ALIAS, f"{short(at.policy)}, trained on round {last.record.round}, which is not finished")
    if wanted is None:
        return not_checkable(ALIAS, f"no round of {name} is finished, the alias is {short(at.policy)}")
    if at.policy != wanted:
        says = f"alias current of model {name} is version {at.number}, policy {short(at.policy)}"
        return failed(ALIAS, f"{says}; the last policy is {short(wanted)}")
    return passed(ALIAS, f"version {at.number} of model {name}, policy {short(at.policy)}")


def tracked_campaign(looked: Looked, members: Members) -> Tracked | Finding:
    """What MLflow has on a campaign, or why that can't be known; asked once an audit."""
    return looked.once(f"mlflow {members.campaign.name}", lambda: _tracked(looked, members))


def _tracked(looked: Looked, members: Members) -> Tracked | Finding:
    store = _store(looked)
    if isinstance(store, Finding):
        return store
    name = members.campaign.name
    versions = [member.record.version for member in members.rounds]
    facts = _asked(lambda: campaign_facts(store, name, versions, SERIES))
    if isinstance(facts, Finding):
        return facts
    if not facts.runs and not facts.model:
        return not_checkable(RUN, f"MLflow has nothing of campaign {name}")
    expected: list[ExpectedRun] = []
    for member in members.rounds:
        if member.manifest is not None:
            expected.append(expected_round(name, member, member.manifest))
        training = _training_of(looked, member.record.version, member.record.next_policy)
        run = expected_training(name, member, training)
        expected += [run] if run is not None else []
    found, others = match_runs(expected, facts.runs)
    return Tracked(members, facts, tuple(expected), found, tuple(others))


def _training_of(looked: Looked, version: str, policy: str | None) -> TrainingRecord | None:
    """The training that gave a policy; of a round that is not finished, the one on its version where there is one."""
    known = trainings(looked)
    if policy is not None:
        return known.of(version, policy)
    fitting = [record for record in known.records if record.result.version == version]
    return fitting[0] if len(fitting) == 1 else None


def _logs(looked: Looked, tracked: Tracked, version: str) -> Iterator[Finding]:
    """The records that trainings were logged: each one's name is a digest over the whole training record."""
    home, name = looked.home, tracked.members.campaign.name
    for record in trainings(looked).records:
        run = tracked.training_run(record.result.policy)
        if record.result.version != version or run is None:
            continue
        stores = _stores(home, run)
        fitting = [
            path
            for path in logged(home)
            if any(path.stem == log_digest(where, name, record.result) for where in {*stores, *_store_said(path)})
        ]
        if not fitting:
            yield _not_logged(home, tracked, record, run)
            continue
        content = {
            "run_id": run.run_id,
            "model_version": next((e.number for e in tracked.facts.model if e.policy == record.result.policy), None),
            "policy": short(record.result.policy),
        }
        uri = fitting[0].relative_to(home.path).as_posix()
        says = _says(fitting[0])
        wrong = [
            f"{key} is {says.get(key)}, expected {value}" for key, value in content.items() if says.get(key) != value
        ]
        if "store" in says and fitting[0].stem != log_digest(str(says["store"]), name, record.result):
            wrong.append(f"store is {says['store']}, and the record is named for another")
        wrong += [problem] if (problem := form_problem(fitting[0])) else []
        yield failed(LOG, "; ".join(wrong), uri) if wrong else passed(LOG, f"{uri} is its digest", record.uri)


def _not_logged(home: Home, tracked: Tracked, record: TrainingRecord, run: RunFacts) -> Finding:
    """No record of logging has the digest of a training record: it was changed, or the other one is not here."""
    for path in logged(home):
        if _says(path).get("run_id") == run.run_id and (_store_said(path) or not os.environ.get(URI)):
            where = path.relative_to(home.path).as_posix()
            said = f"its digest is not the one that {where} is named for, from when run {run.run_id} was logged"
            return failed(LOG, said, record.uri)
    if os.environ.get(URI):
        return not_checkable(LOG, f"{URI} may have been another address then", record.uri)
    if any(member.record.next_policy == record.result.policy for member in tracked.members.rounds):
        return failed(LOG, f"checkpoints/{LOGGED} has no record of run {run.run_id}", record.uri)
    return not_checkable(LOG, "the round is not finished", record.uri)


def _says(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except IntegrityError:
        return {}
    return content if isinstance(content, dict) else {}


def _store_said(path: Path) -> set[str]:
    """The store that a record says it is of; its name is a digest over that, too."""
    store = _says(path).get("store")
    return {store} if isinstance(store, str) else set()


def _stores(home: Home, run: RunFacts) -> set[str]:
    """Where the run may have been logged to: here, or in the place that this home had when it was made."""
    places = {str(home.path)}
    for dataset in run.datasets:
        path = unquote(urlsplit(dataset.source).path)
        places.add(path.rpartition("/versions/")[0])
    stores = {f"sqlite:///{place}/{DATABASE}" for place in places if place}
    configured = os.environ.get(URI)
    return stores | ({configured} if configured else set())


def _store(looked: Looked) -> Tracking | Finding:
    home = looked.home
    if not os.environ.get(URI) and not (home / DATABASE).exists():
        return not_checkable(RUN, "this home has no MLflow database", DATABASE)
    return looked.once("mlflow", lambda: Tracking(home, attempts=1))


def _asked(question: Callable[[], Answer]) -> Answer | Finding:
    try:
        return question()
    except (ServiceError, ConfigError) as error:
        return not_checkable(RUN, error.message)
