"""Audit of the figures in a campaign's record: each against the record it was taken from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from storage.campaigns import Campaign
from storage.errors import IntegrityError
from storage.files import read_json
from storage.findings import Finding, failed, not_checkable, passed
from storage.home import Home
from tasks.audit.looked import Looked
from tasks.audit.memberships import Member, Members
from tasks.audit.tracked import Tracked, tracked_campaign
from tasks.audit.trainings import trainings
from tasks.rounds.publishing import round_numbers

SCREENING = "screening_seconds"
GAINS = ("context_gain_before", "context_gain_after", "context_gain_error", "heldout_loss_before", "heldout_loss_after")
TRAINING = ("training_seconds", "training_tokens", "first_loss", "last_loss")
_STEP = "context-gain"


def audit_figures(looked: Looked, members: Members, uri: str) -> Iterator[Finding]:
    """Counts and measures against the manifest, training against its record, context gain against its records,
    seconds against MLflow. What no other record knows is named as not checkable.
    """
    for member in members.rounds:
        check = f"figures of round {member.record.round}"
        if not member.record.figures:
            yield not_checkable(check, "the record has none", uri)
            continue
        expected = _expected(looked, members, member)
        figures = member.record.figures
        wrong = [
            f"{name} is {figures.get(name, 'nothing')}, expected {value}"
            for name, value in sorted(expected.items())
            if name not in figures or figures[name] != value
        ]
        if wrong:
            yield failed(check, "; ".join(wrong), uri)
        else:
            yield passed(check, f"{len(expected)} agree with the records they come from", uri)
        unknown = sorted(figures.keys() - expected.keys())
        if unknown:
            yield not_checkable(f"other {check}", f"no other record here has {', '.join(unknown)}", uri)


def _expected(looked: Looked, members: Members, member: Member) -> dict[str, Any]:
    expected: dict[str, Any] = {}
    record, manifest = member.record, member.manifest
    if manifest is not None:
        expected |= round_numbers(manifest)
    tracked = tracked_campaign(looked, members)
    if isinstance(tracked, Tracked):
        for place, run in tracked.found.items():
            seconds = run.metrics.get(SCREENING)
            if (tracked.expected[place].version, tracked.expected[place].kind) == (record.version, "round"):
                expected |= {} if seconds is None else {SCREENING: seconds}
    if record.next_policy is None:
        return expected
    training = trainings(looked).of(record.version, record.next_policy)
    if training is not None:
        result = training.result
        values = (result.seconds, result.tokens, result.first_loss, result.last_loss)
        expected |= dict(zip(TRAINING, values, strict=True))
    if manifest is not None:
        expected |= _gains(looked, members.campaign, member.trained, record.next_policy, manifest.corpus)
    # A record may have been written by hand-started trainings, which measure nothing: then it has none of a kind.
    for names in (TRAINING, GAINS):
        if not any(name in record.figures for name in names):
            expected = {name: value for name, value in expected.items() if name not in names}
    return expected


def _gains(looked: Looked, campaign: Campaign, before: str | None, after: str, corpus: str) -> dict[str, Any]:
    records = looked.once(_STEP, lambda: _gain_records(looked.home))
    settings = _settings(campaign.config.get("evaluation"))
    earlier, later = (_gain(records, policy, corpus, settings) for policy in (before, after))
    figures: dict[str, Any] = {}
    if earlier is not None:
        figures |= {"context_gain_before": earlier.get("gain"), "heldout_loss_before": earlier.get("loss_long")}
    if later is not None:
        figures |= {
            "context_gain_after": later.get("gain"),
            "context_gain_error": later.get("standard_error"),
            "heldout_loss_after": later.get("loss_long"),
        }
    return figures


def _gain(
    records: list[dict[str, Any]], policy: str | None, corpus: str, settings: dict[str, Any]
) -> Mapping[str, Any] | None:
    """The one measurement of a policy under the campaign's settings; None when there is none, or more than one."""
    inputs = {"policy": policy, "corpus": corpus}
    fitting = [r for r in records if r["key"]["inputs"] == inputs and _settings(r["key"]["config"]) == settings]
    return fitting[0]["result"] if len(fitting) == 1 else None


def _settings(config: Any) -> dict[str, Any]:
    """Without the device, which a campaign may leave to the machine."""
    return {name: value for name, value in config.items() if name != "device"} if isinstance(config, dict) else {}


def _gain_records(home: Home) -> list[dict[str, Any]]:
    found = []
    for path in sorted((home / f"checkpoints/{_STEP}").glob("*.json")):
        try:
            record = read_json(path)
            record["key"]["inputs"], record["key"]["config"], record["result"]["gain"]
        except (IntegrityError, KeyError, TypeError):
            continue  # an evaluation is no part of a round's chain: its figure is then not checkable
        found.append(record)
    return found
