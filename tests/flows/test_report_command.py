"""``policylong report`` as a user meets it, and the pages that a campaign writes by itself."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from flows.report import pages_after_round
from storage.campaigns import RoundRecord, record_round, start_campaign
from storage.files import read_json
from storage.findings import Finding, failed, not_checkable, passed
from storage.home import Home
from tasks.reporting.writing import campaign_path, round_path
from tests.reported_page import read_page
from tests.rounds import BuiltRound, build_rounds


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """The handler that the command line installs ends with the test."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[BuiltRound]:
    return build_rounds(Home.open(tmp_path_factory.mktemp("rounds") / "home"), 2)


@pytest.fixture
def rounds(made: list[BuiltRound], tmp_path: Path) -> tuple[Home, list[BuiltRound]]:
    """A copy of the campaign: some tests change it."""
    shutil.copytree(made[0].home.path, tmp_path / "copy")
    return Home.open(tmp_path / "copy"), made


def run(home: Home, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], str]:
    code = main(["--home", str(home.path), "report", *words])
    shown = capsys.readouterr()
    return code, shown.out.split(), shown.err


def test_without_a_name_it_is_the_current_campaign_with_its_rounds(
    rounds: tuple[Home, list[BuiltRound]], capsys: pytest.CaptureFixture[str]
) -> None:
    home, built = rounds
    wanted = [campaign_path(home, "world"), *(round_path(home, one.version) for one in built)]
    for words in ((), ("world",)):
        code, paths, _ = run(home, capsys, *words)
        assert (code, paths) == (0, [str(path) for path in wanted])
    assert all(read_page(path).headings[0][1] for path in wanted)


def test_a_round_is_named_by_number_campaign_and_version(
    rounds: tuple[Home, list[BuiltRound]], capsys: pytest.CaptureFixture[str]
) -> None:
    home, built = rounds
    for words in ("2", "world:2", built[1].version, built[1].version[:9]):
        assert run(home, capsys, words)[:2] == (0, [str(round_path(home, built[1].version))])
    assert read_page(round_path(home, built[1].version)).headings[0] == (1, "Round 2 of campaign world")
    assert not campaign_path(home, "world").exists()


def test_the_verdict_of_the_audit_is_there_only_when_it_was_run(
    rounds: tuple[Home, list[BuiltRound]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.audit.checks import AuditReport

    home, built = rounds
    path = round_path(home, built[1].version)
    run(home, capsys, "2")
    assert "No audit was run for this page" in read_page(path).text
    assert f"policylong report {built[1].version[:12]} --audit" in read_page(path).text
    good = (passed("file", "", "a"), passed("file", "", "b"), not_checkable("MLflow run", "the database is <gone>"))
    asked: list[str] = []

    def audited(found: tuple[Finding, ...]) -> Callable[[Home, str], AuditReport]:
        def audit(home: Home, version: str) -> AuditReport:
            asked.append(version)
            return AuditReport(version=version, round=2, findings=found)

        return audit

    monkeypatch.setattr("tasks.audit.checks.audit_version", audited(good))
    assert run(home, capsys, "2", "--audit")[0] == 0
    page = read_page(path)
    assert "Nothing failed: 2 checks passed, 0 failed, 1 not checkable." in page.text
    assert page.table("What did not pass")[1:] == [
        ["Not checkable", "MLflow run", "no value", "the database is <gone>"]
    ]
    assert page.column("Every check", "Passed") == {"file": "2", "MLflow run": "no value"}
    monkeypatch.setattr("tasks.audit.checks.audit_version", audited((*good, failed("file", "was changed", "c"))))
    assert run(home, capsys, "--audit")[0] == 0, "a report of damage is a report"
    for found in (read_page(path), read_page(campaign_path(home, "world"))):
        assert "This version does not hold: 2 checks passed, 1 failed" in found.text
        assert ["FAILED", "file", "c", "was changed"] in found.table("What did not pass")
    assert asked == [built[1].version, built[0].version, built[1].version]


def test_what_is_not_there_is_one_clear_line(
    rounds: tuple[Home, list[BuiltRound]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    home, built = rounds
    for words, told in (
        ("nosuch", "Campaigns here: world."),
        ("7", "campaign 'world' has no round 7 (finished: 1, 2)."),
        ("ffff", "no dataset version begins with ffff"),
    ):
        code, paths, error = run(home, capsys, words)
        assert (code, paths) == (2, [])
        assert told in error
        assert "Traceback" not in error
    start_campaign(home, built[0].version[:6], {}, current=False)
    assert "is a campaign, and" in run(home, capsys, built[0].version[:6])[2]
    code, _, error = run(Home(tmp_path / "none"), capsys)
    assert code == 2
    assert "there is no home" in error
    assert "there is no campaign" in run(Home.open(tmp_path / "empty"), capsys)[2]


def test_an_unfinished_campaign_has_a_page(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    start_campaign(home, "begun", {"build": {}})
    assert run(home, capsys)[0] == 0
    assert "No round of this campaign is finished" in read_page(campaign_path(home, "begun")).text


def test_croissant_lies_beside_the_rounds(
    rounds: tuple[Home, list[BuiltRound]], capsys: pytest.CaptureFixture[str]
) -> None:
    home, built = rounds
    _, paths, _ = run(home, capsys, "--croissant")
    assert paths[3:] == [str(round_path(home, one.version).with_name("croissant.json")) for one in built]
    assert all(Path(path).is_file() for path in paths)


def test_a_campaign_writes_its_pages_once_per_state_and_shows_them_in_mlflow(
    rounds: tuple[Home, list[BuiltRound]], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, built = rounds
    logged: list[Any] = []

    class Runs:
        def __init__(self, home: Home) -> None:
            pass

        def round_run(self, campaign: str, number: int, version: str, *, policy: str) -> str:
            return f"{campaign} {number} {version[:6]}"

        def log_round(self, run: str, *, artifacts: list[Path]) -> None:
            logged.append((run, artifacts))

    monkeypatch.setattr("flows.report.Tracking", Runs)
    pages_after_round(home, "world")
    wanted = [(f"world {n} {one.version[:6]}", [round_path(home, one.version)]) for n, one in enumerate(built, 1)]
    assert logged == wanted
    pages_after_round(home, "world")
    assert logged == wanted, "nothing changed, so nothing is written"
    first = round_path(home, built[0].version)
    first.unlink()
    pages_after_round(home, "world")
    assert first.is_file()
    record = read_json(home / "campaigns/world.json")["rounds"][1]
    logged.clear()
    record_round(home, "world", RoundRecord.model_validate(record | {"figures": {"training_seconds": 3.0}}))
    pages_after_round(home, "world")
    assert logged == wanted
    assert read_page(campaign_path(home, "world")).column("Screening beside", "Training, s")["Round 2"] == "3.0"
