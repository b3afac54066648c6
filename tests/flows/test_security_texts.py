"""Text of a corpus is text: no page, card, artifact or terminal takes it for markup, for code or for a command.

Pages of rounds and traces have tests of their own (tests/tasks/test_reporting.py, test_trace_commands.py); Prefect and
MLflow hold no text of a corpus (tests/deploy/test_standing_check.py).
"""

from __future__ import annotations

import io
import json
import unicodedata
from pathlib import Path

import pytest
from rich.console import Console

from flows.cli import main
from flows.failures import report
from flows.views.audit import show_audit
from flows.views.console import WorkedExample, show_campaign
from storage.errors import InputError
from storage.findings import failed
from storage.home import Home
from tasks.audit.checks import AuditReport
from tasks.rounds.dataset_card import dataset_card
from tasks.rounds.report import round_markdown
from tests.planted import HOSTILE
from tests.rounds import build_rounds

UNSEEN = ("Cc", "Cf", "Zl", "Zp")


def speaks(text: str) -> list[str]:
    """Characters that a terminal would act on or hide."""
    return [character for character in text if character != "\n" and unicodedata.category(character) in UNSEEN]


def terminal() -> Console:
    """Without colours of its own, so that every escape is somebody else's."""
    return Console(file=io.StringIO(), width=600, force_terminal=False, color_system=None)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_is_planted_would_be_seen() -> None:
    assert len(speaks(HOSTILE)) >= 4
    plain = terminal()
    plain.print("a [red]x[/red] b")
    assert "[red]" not in printed(plain), "rich takes it for markup unless it is told"


def test_the_worked_example_at_a_run_s_end_is_text(tmp_path: Path) -> None:
    example = WorkedExample(
        round=1,
        root_before=HOSTILE,
        token=HOSTILE,
        root_after=HOSTILE,
        context=HOSTILE,
        entropy_before=3.0,
        entropy_after=1.0,
        gain=0.6,
        negative=HOSTILE,
        query=HOSTILE,
        root_title=HOSTILE,
        context_title=HOSTILE,
        negative_title=HOSTILE,
    )
    console = terminal()
    show_campaign(console, tmp_path, [], example)
    text = printed(console)
    assert not speaks(text)
    assert text.count("[red]x[/red] \\x1b[31m") == 9, "the token is shown twice"


def test_errors_that_name_a_file_or_quote_a_row_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    report(InputError(f"{HOSTILE}.jsonl can't be read after row 3.", hint="Write it again."))
    line = capsys.readouterr().err
    assert not speaks(line)
    assert "[red]x[/red] \\x1b[31m" in line


def test_an_audit_that_names_a_stranger_s_file_is_text(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    console = terminal()
    finding = failed("file", "is not in the manifest", f"versions/x/{HOSTILE}")
    show_audit(console, AuditReport(version="0" * 64, round=1, findings=(finding,)), quiet=False)
    assert not speaks(printed(console))
    assert "[red]x[/red] \\x1b[31m" in printed(console)
    (built,) = build_rounds(home, 1)
    (home / f"versions/{built.version[:16]}/\x1b[31mred.txt").write_text("")
    assert main(["--home", str(home.path), "audit", "1", "--quiet"]) == 1
    assert "\\x1b[31mred.txt" in capsys.readouterr().out


def test_a_document_that_can_not_be_read_is_refused_in_text(
    tmp_path: Path, home_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "\x1b[31mcorpus"
    folder.mkdir()
    (folder / "\x1b[2Ja.xyz").write_text("text")
    assert main(["--home", str(home_path), "ingest", str(folder / "\x1b[2Ja.xyz")]) == 2
    shown = capsys.readouterr()
    assert "\\x1b[2Ja.xyz" in shown.err
    assert not speaks(shown.err.replace("\x1b[0m", ""))


def test_card_and_artifacts_of_a_round_quote_no_document(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    import tests.rounds as made

    rows = [row | {"title": HOSTILE, "source": HOSTILE, "group": HOSTILE} for row in made.documents()]
    monkeypatch.setattr(made, "documents", lambda: rows)
    (built,) = build_rounds(home, 1)
    assert {row["title"] for row in rows} == {HOSTILE}
    for page in (dataset_card(built.manifest).decode(), round_markdown(built.manifest, built.version)):
        assert "alert" not in page
        assert not speaks(page)
    assert "alert" not in json.dumps(built.manifest.model_dump(mode="json"))
