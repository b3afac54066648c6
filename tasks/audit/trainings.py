"""Audit of the trainings on a version: did the run that made the next policy consume exactly this version?

A training leaves a record in the home (``tasks.training.run``), a record that it was logged, whose name is a digest
over the first (``tasks.training.tracking``), and a run in MLflow. They are compared with each other, with the
policy's record and with the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from models.training import TrainingConfig
from storage.checkpoints import StepKey
from storage.digests import digest_json, short
from storage.errors import IntegrityError
from storage.files import read_json
from storage.findings import Finding, failed, not_checkable, passed
from storage.home import Home
from storage.manifests import Manifest
from storage.policies import PolicyRecord
from tasks.audit.looked import Looked, form_problem
from tasks.audit.policies import known_policies, record_uri
from tasks.training.run import STEP, TrainingResult

CHECK = "training consumed exactly this version"
LOGGED = "log-training"
_LOG_KEYS = ({"run_id", "model_version", "policy"}, {"run_id", "model_version", "policy", "store"})
"""Of records that do not name their store, and of those that do."""


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """The record of a finished training and where it lies."""

    uri: str
    result: TrainingResult
    config: dict[str, Any]

    @property
    def params(self) -> dict[str, Any] | None:
        """The configuration as it was logged, or ``None`` when this version of policylong does not know it."""
        try:
            return TrainingConfig.model_validate(self.config).model_dump(mode="json")
        except ValidationError:
            return None


@dataclass(frozen=True, slots=True)
class Trainings:
    """Every training record of a home that can be read, and what is wrong with the others."""

    records: tuple[TrainingRecord, ...]
    damaged: tuple[Finding, ...]

    def of(self, version: str, policy: str) -> TrainingRecord | None:
        """The training on a version that gave a policy."""
        fitting = (r for r in self.records if (r.result.version, r.result.policy) == (version, policy))
        return next(fitting, None)


def trainings(looked: Looked) -> Trainings:
    """The training records of the home, read once an audit."""
    return looked.once("trainings", lambda: _trainings(looked.home))


def audit_trainings(looked: Looked, version: str, manifest: Manifest) -> Iterator[Finding]:
    """Every training whose policy says that it was trained on this version."""
    known = trainings(looked)
    yield from known.damaged
    every = known_policies(looked.home)
    policies = every.trained_on(version)
    for record in known.records:
        policy = every.records.get(record.result.policy)
        if record.result.version != version or policy in policies:
            continue
        if policy is None and policies:
            yield failed(CHECK, f"gave policy {short(record.result.policy)}, which this home does not have", record.uri)
        elif policy is not None:
            says = f"its record names {short(policy.trained_on or 'nothing')}, {record.uri} names {short(version)}"
            yield failed(CHECK, says, record_uri(policy.digest))
    if not policies:
        yield not_checkable(CHECK, "no policy of this home was trained on it")
    for policy in policies:
        training = known.of(version, policy.digest)
        if training is None:
            yield _without_record(looked.home, version, policy, hidden=bool(known.damaged))
            continue
        wrong = _differences(training, policy, manifest)
        said = f"{short(policy.digest)} from {short(training.result.parent)}, {training.result.samples} samples"
        yield failed(CHECK, "; ".join(wrong), training.uri) if wrong else passed(CHECK, said, training.uri)


def _without_record(home: Home, version: str, policy: PolicyRecord, *, hidden: bool) -> Finding:
    """Trained elsewhere, or trained here and the record is gone: then the record that it was logged is still there."""
    here = [path for path in logged(home) if _logged_policy(path) == short(policy.digest)]
    what = f"{short(policy.digest)} has no training record for {short(version)}"
    if here and not hidden and not policy.also_trained_on:
        uri = here[0].relative_to(home.path).as_posix()
        return failed(CHECK, f"checkpoints/{STEP}: {what}, and it was logged as trained here", uri)
    return not_checkable(CHECK, f"{what} in this home: trained elsewhere, or the record was left there")


def logged(home: Home) -> list[Path]:
    """The records of trainings that were logged."""
    return sorted((home / f"checkpoints/{LOGGED}").glob("*.json"))


def _logged_policy(path: Path) -> str:
    try:
        return str(read_json(path)["policy"])
    except (IntegrityError, KeyError, TypeError):
        return ""


def _differences(record: TrainingRecord, policy: PolicyRecord, manifest: Manifest) -> list[str]:
    result = record.result
    samples = manifest.funnel.get("samples", result.samples)
    pairs: list[tuple[str, object, object]] = [
        ("parent", short(result.parent), short(policy.parent or "nothing")),
        ("round", result.round, manifest.round),
        ("samples", result.samples, samples),
    ]
    if manifest.relation == "on-policy":
        pairs.append(("trained policy", short(result.parent), short(manifest.policy)))
    return [f"{name} is {found}, expected {wanted}" for name, found, wanted in pairs if found != wanted]


def _trainings(home: Home) -> Trainings:
    records, damaged = [], []
    for path in sorted((home / f"checkpoints/{STEP}").glob("*.json")):
        uri = path.relative_to(home.path).as_posix()
        try:
            whole = read_json(path)
            key = StepKey.model_validate(whole["key"])
            result = TrainingResult.model_validate(whole["result"])
        except IntegrityError:
            damaged.append(failed("training record", "is not JSON", uri))
            continue
        except (ValidationError, KeyError, TypeError) as error:
            damaged.append(failed("training record", f"can't be understood ({type(error).__name__})", uri))
            continue
        inputs = {"version": result.version, "policy": result.parent}
        wrong = [
            text
            for text, holds in (
                (f"its key has digest {short(key.digest)}, its name {short(path.stem)}", key.digest == path.stem),
                ("its result is of another version or parent than its key", key.inputs == inputs),
                ("it gives two durations", whole.get("seconds") == result.seconds),
                (form_problem(path) or "", form_problem(path) is None),
            )
            if not holds
        ]
        if wrong:
            damaged.append(failed("training record", "; ".join(wrong), uri))
        records.append(TrainingRecord(uri, result, key.config))
    for path in logged(home):
        try:
            whole = read_json(path)
        except IntegrityError:
            whole = None
        known = isinstance(whole, dict) and any(whole.keys() == keys for keys in _LOG_KEYS)
        problem = None if known else "is no record of a logged training"
        problem = problem or form_problem(path)
        if problem:
            damaged.append(failed("training record", problem, path.relative_to(home.path).as_posix()))
    return Trainings(tuple(records), tuple(damaged))


def log_digest(where: str, campaign: str, result: TrainingResult) -> str:
    """The name of the record that a training was logged to a store under a campaign's name."""
    return digest_json([where, campaign, result.model_dump(mode="json")])
