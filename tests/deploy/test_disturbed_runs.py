"""Drills of single disturbances, in short, on a campaign of a second: what they claim."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from deploy.drills import clock_drill, damage_drill, disk_drill, twice_drill
from deploy.drills.disturbed_runs import Ending, Ground, as_undisturbed, conclude, moments, refusal, run_to_end
from deploy.drills.flip_drill import flip
from deploy.drills.kill_drill import Verdict, events
from storage.checkpoints import StepKey, run_step
from storage.errors import IntegrityError
from storage.home import Home
from storage.refs import Ref
from storage.schemas import TABLES
from storage.tables import write_table
from tests.deploy.disturbed_worlds import failed, small_ground, undisturbed
from tests.rounds import build_rounds


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return small_ground(tmp_path)


def test_without_room_for_a_file_there_is_one_line_and_then_it_carries_on(ground: Ground) -> None:
    limits = disk_drill.limits(ground, 2, random.Random(0))
    assert limits == sorted(set(limits))
    found = list(disk_drill.drill_limits(ground, limits))
    assert failed(found) == []
    assert all("exit code 5: error: the disk is full" in verdict.detail for verdict in found[:2])


def test_all_room_is_taken_but_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = 3 * disk_drill.BLOCK + 4096
    ballast = tmp_path / "ballast"
    monkeypatch.setattr(disk_drill, "_room", lambda folder: room - ballast.stat().st_size)
    assert disk_drill.fill(ballast, leave=1024) == room - 1024 == ballast.stat().st_size


def test_of_two_campaigns_at_once_one_works_and_the_other_says_so(ground: Ground) -> None:
    found = list(twice_drill.drill(ground, [3]))
    assert failed(found) == []
    assert "another process works on" in found[0].detail


def test_a_clock_that_jumps_changes_nothing(ground: Ground) -> None:
    found = list(clock_drill.drill(ground, [2, 9], random.Random(0), faketime=None))
    assert failed(found) == []
    assert next(verdict for verdict in found if verdict.claim == "the clock was set").detail.count("at step") == 2


def test_a_damaged_table_is_found_and_made_again_and_what_was_made_from_it_is_right(ground: Ground) -> None:
    found = list(damage_drill.drill(ground, [4, 9], random.Random(1)))
    assert failed(found) == []
    (seen,) = [verdict.detail for verdict in found if "while the campaign goes on" in verdict.claim]
    assert "exit code 1: error: work/" in seen, "by the step that reads it, not by the publication at last"


def test_a_step_does_not_read_a_table_that_was_damaged_after_it_was_made(home: Home) -> None:
    key, table = StepKey(step="second", code_version=1, inputs={}, config={}), TABLES["unplaced"]
    ref = write_table(home.path, "work/first.parquet", table, [])
    made: list[Ref] = []

    def produce() -> dict[str, Ref]:
        made.append(write_table(home.path, "work/second.parquet", table, []))
        return {"unplaced": made[-1]}

    flip(home / ref.uri, 8)
    with pytest.raises(IntegrityError, match=r"work/first\.parquet was changed") as error:
        run_step(home, key, produce, read=[ref])
    assert "Run the same command again" in error.value.hint
    assert made == []
    flip(home / ref.uri, 8)
    assert run_step(home, key, produce, read=[ref])["unplaced"] == made[0]


def test_another_version_and_a_step_done_twice_are_seen(ground: Ground) -> None:
    other = Home.open(ground.home("other"))
    build_rounds(other, 1)
    for _ in range(2):
        other.journal({"event": "finished", "step": "verification", "key": "k"})
    wrong = failed(list(as_undisturbed(ground, other.path)))
    assert {"round 1 has the same version", "no step was finished twice"} <= {verdict.claim for verdict in wrong}
    (again,) = [v for v in as_undisturbed(ground, other.path, damaged=["k"]) if v.claim.startswith("what was damaged")]
    assert not again.holds


def test_the_end_of_a_command_has_to_be_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    clear = "error: the disk is full. Free space."
    assert refusal("", Ending(5, f"working\n{clear}\n"), 5).holds
    for code, said in (
        (4, clear),
        (5, "error: the disk is full."),
        (5, f"{clear}\n{clear}"),
        (5, f"Traceback (most recent call last):\n{clear}"),
        (5, ""),
    ):
        assert not refusal("", Ending(code, said), 5).holds, said
    log = tmp_path / "log"
    log.write_text("error: of the run before. Do it.\n")
    assert run_to_end([sys.executable, "-c", "print('x'); raise SystemExit(3)"], log) == Ending(3, "x\n")


def test_moments_are_drawn_one_from_each_slice(ground: Ground) -> None:
    drawn = moments(30, 3, random.Random(0).uniform)
    assert [0 <= drawn[0] < 10, 10 <= drawn[1] < 20, 20 <= drawn[2] < 30] == [True] * 3
    assert ground.steps == len({event["key"] for event in events(undisturbed()) if event["event"] == "finished"})


def test_a_claim_that_does_not_hold_is_the_exit_code_and_keeps_the_logs(
    ground: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    assert conclude(ground, [Verdict("a", True, ""), Verdict("b", False, "why")], keep=False) == 1
    assert ground.scratch.is_dir()
    assert conclude(ground, [], keep=True) == 1
    assert conclude(ground, [Verdict("a", True, "")], keep=False) == 0
    assert not ground.scratch.exists()
    assert "why" in capsys.readouterr().out
