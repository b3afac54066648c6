"""The audit as a flow and as a command: a report where all is well, a failure that names the file where it is not."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.audit import audit
from flows.cli import main
from storage.campaigns import load_campaign
from storage.errors import IntegrityError
from storage.findings import Finding, not_checkable
from storage.home import Home
from storage.manifests import Manifest
from tests.finished_campaign import NAME, finished_campaign
from tests.rounds import build_rounds, version_folder


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """The handlers that the command line installs end with the test."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])


def run(home: Home, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["--home", str(home.path), "audit", *words])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_scheduled_audit_reports_or_fails_naming_the_file(home: Home) -> None:
    (built,) = build_rounds(home, 1)
    report = audit.fn(str(home.path), "1")
    assert (report["version"], report["exit_code"]) == (built.version, 0)
    assert [number["version"] for number in audit.fn(str(home.path), "world")["rounds"]] == [built.version]
    path = version_folder(built) / "tables/positions-00001.parquet"
    path.unlink()
    with pytest.raises(IntegrityError, match=f"{Path(version_folder(built)).name}/tables/positions-00001"):
        audit.fn(str(home.path), built.version[:12])
    with pytest.raises(IntegrityError, match=r"campaign world: 1 rounds, .*positions-00001"):
        audit.fn(str(home.path), "world")


def test_the_command_audits_a_campaign_and_says_which_round_a_line_is_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = finished_campaign(tmp_path / "home")
    first = load_campaign(home, NAME).rounds[0].version
    code, text, _ = run(home, capsys, NAME, "--quiet")
    assert code == 0
    headings = [line.split(":")[0] for line in text.splitlines() if "checks passed" in line]
    second = load_campaign(home, NAME).rounds[1].version
    assert headings == [f"round 1, {first[:12]}", f"round 2, {second[:12]}", f"campaign {NAME}"]
    assert "passed · " not in text

    card = home / f"versions/{first[:16]}/README.md"
    card.unlink()
    card.write_bytes(b"# Another card\n")
    code, text, _ = run(home, capsys, NAME, "--json")
    report = json.loads(text)
    assert (code, report["exit_code"], report["campaign"]) == (1, 1, NAME)
    failed = [f["file"] for number in report["rounds"] for f in number["findings"] if f["status"] == "failed"]
    # Round 2 has round 1 behind it: the same file breaks its chain.
    assert failed == [f"versions/{first[:16]}/README.md"] * 2


def test_what_was_asked_beyond_reading_is_asked_and_said_also_where_it_can_t_be_done(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def rescore(home: Home, version: str, manifest: Manifest, count: int, seed: int) -> Iterator[Finding]:
        yield not_checkable("re-scored verdicts", f"{count} of round {manifest.round}, seed {seed}")

    monkeypatch.setattr("tasks.audit.rescoring.rescore", rescore)  # the policy of this world is one number
    build_rounds(home, 1)
    code, text, _ = run(home, capsys, "1", "--deep", "3", "--seed", "2", "--rebuild", "--quiet")
    assert code == 0
    assert "not-checkable · re-scored verdicts · 3 of round 1, seed 2" in text
    assert "not-checkable · built again · no campaign of this home says which embedder the round had." in text
    assert not list(home.path.glob(".rebuild-*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [(["nobody"], "'nobody' is neither a round number nor"), (["7"], "has no round 7"), (["ffff"], "begins with ffff")],
)
def test_what_is_not_there_is_one_line_and_exit_code_2(
    words: list[str], message: str, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    build_rounds(home, 1)
    code, text, error = run(home, capsys, *words)
    assert (code, text) == (2, "")
    assert message in error
