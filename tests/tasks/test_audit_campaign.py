"""The audit of a campaign: all rounds and the chain between them, in a home that was moved, unfinished or in parts."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storage.campaigns import load_campaign
from storage.digests import digest_json
from storage.errors import InputError
from storage.files import read_json, write_bytes, write_json
from storage.findings import Finding
from storage.home import Home
from tasks.audit.campaign import CampaignReport, audit_campaign, audit_named
from tasks.audit.checks import AuditReport
from tests.finished_campaign import NAME, finished_campaign, original

RECORD = f"campaigns/{NAME}.json"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """The finished campaign in a home of the test's own: another folder than the one it was made in."""
    return finished_campaign(tmp_path / "moved")


def failed(report: CampaignReport) -> dict[str, str | None]:
    return {finding.check: finding.file for finding in report.failures}


def of(report: CampaignReport, check: str) -> Finding:
    return next(finding for finding in report.every if finding.check == check)


def edit(home: Home, uri: str, change: Callable[[Any], Any]) -> None:
    """Another content in policylong's own form."""
    content = read_json(home / uri)
    change(content)
    (home / uri).unlink()
    write_json(home / uri, content)


def flow_runs(home: Home, runs: list[tuple[str, dict[str, Any]]]) -> None:
    """A Prefect history with finished runs of (flow, parameters)."""
    (home / "prefect").mkdir(exist_ok=True)
    (home / "prefect/prefect.db").unlink(missing_ok=True)
    with closing(sqlite3.connect(home / "prefect/prefect.db")) as database, database:
        database.execute("CREATE TABLE flow (id TEXT, name TEXT)")
        database.execute("CREATE TABLE flow_run (id TEXT, flow_id TEXT, state_type TEXT, parameters TEXT, start_time)")
        for number, (flow, parameters) in enumerate(runs):
            database.execute("INSERT INTO flow VALUES (?, ?)", (flow, flow))
            row = (f"run-{number}", flow, "COMPLETED", json.dumps(parameters), number)
            database.execute("INSERT INTO flow_run VALUES (?, ?, ?, ?, ?)", row)
            database.execute("DELETE FROM flow WHERE rowid NOT IN (SELECT min(rowid) FROM flow GROUP BY id)")


def test_a_finished_campaign_in_a_moved_home_passes_and_leaves_out_only_the_other_machine_s_history(home: Home) -> None:
    report = audit_campaign(home, NAME)
    assert failed(report) == {}
    assert (report.exit_code, [number.round for number in report.rounds]) == (0, [1, 2])
    left_out = {finding.check for finding in report.every if finding.status == "not-checkable"}
    assert left_out == {"Prefect flow run that built it"}
    for check in ("chain of rounds 1 → 2", "MLflow alias current", "training as it was logged", "MLflow training run"):
        assert of(report, check).status == "passed"
    assert of(report, "figures of round 2").detail == "21 agree with the records they come from"
    assert str(original()) not in report.model_dump_json()


def test_the_json_of_a_campaign_holds_its_rounds_and_the_counts(home: Home) -> None:
    report = json.loads(audit_campaign(home, NAME).model_dump_json())
    assert list(report) == ["campaign", "rounds", "findings", "exit_code", "summary"]
    assert list(report["rounds"][0]) == ["version", "round", "findings", "exit_code", "summary"]
    passed = sum(f["status"] == "passed" for part in [report, *report["rounds"]] for f in part["findings"])
    assert report["summary"] == f"2 rounds, {passed} checks passed, 0 failed, 2 not checkable"


def test_what_a_user_names_is_a_campaign_a_round_or_a_version(home: Home) -> None:
    first = load_campaign(home, NAME).rounds[0]
    whole, number, prefix = (audit_named(home, text) for text in (NAME, f"{NAME}:1", first.version[:8]))
    assert isinstance(whole, CampaignReport)
    assert isinstance(number, AuditReport)
    assert isinstance(prefix, AuditReport)
    assert number == prefix
    assert whole.rounds[0].version == number.version


def test_what_names_nothing_or_two_things_is_one_clear_line(home: Home) -> None:
    for text, message in (
        ("nobody", "neither a round number nor"),
        ("0000aaaa", "no dataset version begins with 0000aaaa"),
        ("9", "has no round 9"),
        ("other:1", "there is no campaign 'other'"),
    ):
        with pytest.raises(InputError, match=message):
            audit_named(home, text)
    version = load_campaign(home, NAME).rounds[0].version
    twin = home / f"versions/{version[:6]}0123456789"
    shutil.copytree(home / f"versions/{version[:16]}", twin)
    with pytest.raises(InputError, match="is ambiguous"):
        audit_named(home, version[:6])
    write_json(home / f"campaigns/{version[:8]}.json", read_json(home / RECORD) | {"name": version[:8]})
    with pytest.raises(InputError, match="is a campaign, and"):
        audit_named(home, version[:8])


def test_a_round_that_is_not_finished_is_said_and_is_no_failure(home: Home) -> None:
    edit(home, RECORD, lambda record: record["rounds"][1].update(next_policy=None, figures={}))
    edit(home, RECORD, lambda record: record["rounds"][1].update(figures=_published(home)))
    report = audit_campaign(home, NAME)
    assert failed(report) == {}
    going_on = of(report, "rounds of the campaign")
    assert (going_on.status, going_on.file) == ("not-checkable", RECORD)
    assert "1 finished; round 2 is built and no policy was trained on it yet" in going_on.detail
    assert "which is not finished" in of(report, "MLflow alias current").detail


def _published(home: Home) -> dict[str, float]:
    whole = read_json(original() / RECORD)["rounds"][1]["figures"]
    drop = ("training_", "first_", "last_", "context_", "heldout_")
    return {name: value for name, value in whole.items() if not name.startswith(drop)}


def test_a_home_with_nothing_but_versions_and_the_record_is_mostly_not_checkable(home: Home) -> None:
    for folder in ("mlflow", "policies", "corpora", "checkpoints"):
        shutil.rmtree(home / folder)
    report = audit_campaign(home, NAME)
    assert failed(report) == {}
    for check in (
        "MLflow run",
        "MLflow registry",
        "screening policy",
        "corpus",
        "training consumed exactly this version",
    ):
        assert of(report, check).status == "not-checkable", check
    assert of(report, "figures of round 1").status == "passed"


EDITS: dict[str, tuple[str, Callable[[Any], Any], dict[str, str]]] = {
    "another next policy": (
        RECORD,
        lambda record: record["rounds"][0].update(next_policy=record["rounds"][1]["next_policy"]),
        {"chain of rounds 1 → 2": RECORD, "policy after round 1 was trained on it": RECORD},
    ),
    "a round left out": (RECORD, lambda record: record["rounds"].pop(0), {"campaign record": RECORD}),
    "a version that is not there": (
        RECORD,
        lambda record: record["rounds"][1].update(version="ab" * 32),
        {"round 2": RECORD},
    ),
    "another configuration": (RECORD, lambda record: record["config"].update(entropy={}), {"campaign record": RECORD}),
    "another number": (
        RECORD,
        lambda record: record["rounds"][1]["figures"].update(screening_seconds=1.0),
        {"figures of round 2": RECORD},
    ),
    "another context gain": (
        RECORD,
        lambda record: record["rounds"][0]["figures"].update(context_gain_after=9.0),
        {"figures of round 1": RECORD},
    ),
    "another name": (RECORD, lambda record: record.update(name="other"), {"campaign record": RECORD}),
}


@pytest.mark.parametrize("what", EDITS)
def test_a_record_that_says_something_else_is_found(what: str, home: Home) -> None:
    uri, change, expected = EDITS[what]
    edit(home, uri, change)
    found = failed(audit_campaign(home, NAME))
    assert {check: found.get(check) for check in expected} == expected


def test_a_lost_or_broken_record_is_a_failure_and_the_versions_are_audited_all_the_same(home: Home) -> None:
    damaged = next((home / "versions").glob("*/README.md"))
    damaged.unlink()
    damaged.write_bytes(b"another card")
    for data in (b"{", None):
        (home / RECORD).unlink()
        if data is not None:
            write_bytes(home / RECORD, data)
        report = audit_campaign(home, NAME)
        assert failed(report)["campaign record"] == RECORD
        assert damaged.relative_to(home.path).as_posix() in failed(report).values()
    (home / "campaigns/current").unlink()
    with pytest.raises(InputError, match="there is no campaign"):
        audit_campaign(home, NAME)


def test_a_training_record_of_other_content_is_found_by_the_digest_it_was_logged_under(home: Home) -> None:
    uri = sorted((home / "checkpoints/train").glob("*.json"))[0].relative_to(home.path).as_posix()
    edit(home, uri, lambda record: record["result"].update(resumed_from=1))
    report = audit_campaign(home, NAME)
    assert failed(report) == {"training as it was logged": uri}
    edit(home, uri, lambda record: record["result"].update(resumed_from=0, samples=7))
    assert failed(audit_campaign(home, NAME))["training consumed exactly this version"] == uri


def test_files_that_belong_to_nobody_and_json_in_another_form_are_found(home: Home) -> None:
    policy = next((home / "policies").glob("*/policy.json"))
    corpus = next((home / "corpora").glob("*/corpus.json"))
    (policy.parent / "notes.txt").write_text("notes")
    (corpus.parent / "more.parquet").write_text("more")
    (policy.parent / f".model.safetensors.{os.getpid()}.tmp").write_text("half of a killed copy")
    for path in (policy, corpus, home / RECORD):
        data = path.read_bytes().replace(b'": ', b'":  ', 1)
        path.unlink()
        path.write_bytes(data)
    report = audit_campaign(home, NAME)
    files = {finding.file for finding in report.failures}
    relative = {path.relative_to(home.path).as_posix() for path in (policy, corpus)}
    strange = {
        f"{policy.parent.relative_to(home.path)}/notes.txt",
        f"{corpus.parent.relative_to(home.path)}/more.parquet",
    }
    assert files == {RECORD} | relative | strange


def test_prefect_runs_are_compared_where_there_are_any(home: Home) -> None:
    campaign = load_campaign(home, NAME)
    first, second = campaign.rounds
    builds = [
        ("build", {"inputs": {"campaign": NAME, "round": r.round, "policy": r.policy, "screener": None}})
        for r in campaign.rounds
    ]
    training = ("train", {"version": first.version, "policy": first.policy, "campaign": NAME})
    flow_runs(home, [*builds, training])
    report = audit_campaign(home, NAME)
    assert failed(report) == {}
    status = {r.round: {f.check: f.status for f in r.findings if "Prefect" in f.check} for r in report.rounds}
    built, trained = "Prefect flow run that built it", "Prefect flow run that trained on it"
    assert status == {1: {built: "passed", trained: "passed"}, 2: {built: "passed", trained: "not-checkable"}}

    wrong = ("build", {"inputs": {"campaign": NAME, "round": 1, "policy": second.policy}})
    flow_runs(home, [wrong, ("train", training[1] | {"policy": second.policy})])
    assert failed(audit_campaign(home, NAME)) == dict.fromkeys((built, trained), "prefect/prefect.db")
    write_bytes(home / "prefect/prefect.db", b"not a database" * 99)
    assert of(audit_campaign(home, NAME), built).status == "not-checkable"


def test_the_digest_of_a_logged_training_is_over_store_campaign_and_result(home: Home) -> None:
    """Independent of the audit: what makes a change of any number in a training record visible."""
    record = read_json(sorted((home / "checkpoints/train").glob("*.json"))[0])
    where = f"sqlite:///{original()}/mlflow/mlflow.db"
    assert (home / f"checkpoints/log-training/{digest_json([where, NAME, record['result']])}.json").is_file()
