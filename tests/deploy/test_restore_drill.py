"""The restore drill in short: a small campaign is stopped, backed up, lost and restored elsewhere, and carries on."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from deploy.drills import kill_drill, restore_drill


def command(home: Path) -> list[str]:
    return [sys.executable, "-m", "tests.deploy.small_campaign", str(home)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("undisturbed") / "home"
    kill_drill.run_undisturbed(command(home), home, home.parent / "log")
    return home


def test_a_restored_home_carries_on_with_no_step_done_twice(undisturbed: Path, tmp_path: Path) -> None:
    lost, restored, log = tmp_path / "lost", tmp_path / "elsewhere/restored", tmp_path / "log"
    steps = kill_drill.steps_finished(kill_drill.events(undisturbed))
    assert restore_drill.run_half(command(lost), lost, log, steps // 2) != 0
    known = kill_drill.steps_finished(kill_drill.events(lost))
    assert steps // 2 <= known < steps
    (lost / "index").mkdir()
    (lost / "index/vectors").write_text("made again")
    restore_drill.back_up(lost, tmp_path / "backup.tar")
    shutil.rmtree(lost)
    restore_drill.restore(tmp_path / "backup.tar", restored)
    assert not (restored / "index").exists()
    assert not (restored / "locks").exists()
    kill_drill.run_undisturbed(command(restored), restored, log)
    found = list(kill_drill.judge(undisturbed, restored, only_first=False))
    assert all(verdict.holds for verdict in found), found
    assert kill_drill.steps_finished(kill_drill.events(restored)) == steps
    assert not lost.exists()


def test_a_backup_that_lacks_a_step_is_noticed(undisturbed: Path, tmp_path: Path) -> None:
    copy, log = tmp_path / "copy", tmp_path / "log"
    shutil.copytree(undisturbed, copy)
    shutil.rmtree(copy / "work")
    shutil.rmtree(copy / "versions")
    kill_drill.run_undisturbed(command(copy), copy, log)
    held = {verdict.claim: verdict.holds for verdict in kill_drill.judge(undisturbed, copy, only_first=False)}
    assert held["round 2 has the same version"]
    assert not held["no step was finished twice"]
    assert not held["no finished step was found damaged"]
