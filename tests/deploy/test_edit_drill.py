"""The drill of single edits: every kind of change in a finished campaign is found, named and undone."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.drills import edit_drill
from deploy.drills.edits import copy_home, target_of
from storage.digests import digest_file
from tasks.audit.campaign import CampaignReport, audit_campaign
from tests.finished_campaign import NAME, original

EDITS = 30


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and "locks" not in path.parts)
    return {path.relative_to(folder).as_posix(): digest_file(path) for path in files if path.suffix != ".db"}


def test_every_kind_of_edit_is_found_named_and_undone(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    home, before = copy_home(original(), tmp_path / "home"), contents(original())
    target = target_of(home, original(), NAME)
    outcomes = list(edit_drill.drill(target, range(EDITS), seed=7))
    assert {outcome.kind for outcome in outcomes} == set(edit_drill.KINDS)
    assert [outcome.what for outcome in outcomes if not (outcome.found and outcome.named)] == []
    assert audit_campaign(home, NAME).failures == []
    assert contents(original()) == before
    assert f"| **all** | **{EDITS}** | **{EDITS}** | **{EDITS}** |" in edit_drill.table(outcomes)


def test_an_edit_depends_on_its_number_and_the_seed_alone(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    target = target_of(copy_home(original(), tmp_path / "home"), original(), NAME)
    (first,), (again,) = (list(edit_drill.drill(target, [19], seed=7)) for _ in range(2))
    assert first.what == again.what
    assert first.kind == edit_drill.order()[19 % len(edit_drill.order())]


def test_an_audit_that_overlooks_an_edit_fails_the_drill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = CampaignReport(campaign=NAME, rounds=(), findings=())
    monkeypatch.setattr(edit_drill, "audit_campaign", lambda *_: blind)
    arguments = ["--home", str(original()), "--scratch", str(tmp_path), "--edits", "1", NAME]
    assert edit_drill.main(arguments) == 1
    assert "0 NOT FOUND: one byte changed" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
