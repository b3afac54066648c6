"""The drills: a real process killed at random moments ends as an undisturbed one; a drill sees what it is for."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from deploy.drills import flip_drill, kill_drill
from deploy.drills.kill_drill import Moment, Timeline
from storage.digests import digest_files
from storage.home import Home
from tests.rounds import build_rounds


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Timeline]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder / "home", kill_drill.run_undisturbed(command(folder / "home"), folder / "home", folder / "log")


def command(home: Path) -> list[str]:
    return [sys.executable, "-m", "tests.deploy.small_campaign", str(home)]


def claims(first: Path, second: Path) -> dict[str, bool]:
    return {verdict.claim: verdict.holds for verdict in kill_drill.judge(first, second, only_first=False)}


def test_a_campaign_killed_at_random_moments_ends_as_if_it_had_not_been(
    undisturbed: tuple[Path, Timeline], tmp_path: Path
) -> None:
    home, (first, timeline) = tmp_path / "home", undisturbed
    outcome = kill_drill.run_disturbed(
        command(home), home, tmp_path / "log", kills=6, timeline=timeline, dice=random.Random(1)
    )
    assert len(outcome.kills) == 6
    assert set(kill_drill.round_versions(home)) == {1, 2}
    assert all(claims(first, home).values()), (outcome, claims(first, home))


def test_the_drill_sees_another_version_a_step_done_twice_and_a_damaged_file(
    undisturbed: tuple[Path, Timeline], tmp_path: Path
) -> None:
    first, _ = undisturbed
    other = Home.open(tmp_path / "other")
    build_rounds(other, 1)
    for event in ("finished", "finished", "distrusted"):
        other.journal({"event": event, "step": "verification", "key": "k", "why": "changed"})
    with (other / "journal.jsonl").open("a") as file:
        file.write('{"event": "fini')
    found = claims(first, other.path)
    assert not any(found.values()), found
    assert kill_drill.finished_twice(other.path) == ["verification k"]


def test_moments_fall_into_the_start_and_evenly_into_the_work() -> None:
    steps = ((20.0, 0), (100.0, 1), (110.0, 1), (400.0, 2))
    dice, timeline = random.Random(0), Timeline(total=420.0, start=20.0, steps=steps)
    moments = [kill_drill.draw_moment(dice, timeline, number % 20, 20) for number in range(2_000)]
    assert moments[0] == kill_drill.draw_moment(random.Random(0), timeline, 0, 20)
    starts = [moment for moment in moments if moment.finished is None]
    assert 300 < len(starts) < 500
    assert all(0 <= moment.seconds <= 20 for moment in starts)
    begins = {0: 20.0, 1: 110.0, 2: 400.0}
    points = [begins[m.finished] + m.seconds for m in moments if m.finished in begins and m.finished != 1]
    assert min(points) >= 20
    assert max(points) <= 420
    in_the_long_step = [moment for moment in moments if moment.finished == 1]
    assert 0.65 < len(in_the_long_step) / (len(moments) - len(starts)) < 0.85
    assert str(Moment(1.0, 2)) == "after 1.0 s of work after 2 steps"


def test_a_command_that_fails_by_itself_ends_the_drill_with_its_log_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="exit code 3"):
        kill_drill.run_undisturbed([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, tmp_path / "log")


def test_every_flipped_bit_of_a_round_and_its_chain_is_named_and_put_back(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    (built,) = build_rounds(home, 1)
    files = [p.relative_to(home.path).as_posix() for p in flip_drill.files_of_round(home, built.version, chain=True)]
    before = digest_files(home.path, files)
    assert len(files) == len(built.manifest.files) + 1 + 5 + 4
    assert flip_drill.main(["--home", str(home.path), "1"]) == 0
    assert digest_files(home.path, files) == before
    assert capsys.readouterr().out.count("yes") == len(files)


def test_an_audit_that_overlooks_damage_fails_the_drill(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (built,) = build_rounds(home, 1)
    report = flip_drill.audit_version(home, built.version)
    monkeypatch.setattr(flip_drill, "audit_version", lambda *_: report)
    assert flip_drill.main(["--home", str(home.path), "--version-only"]) == 1
    assert flip_drill.main(["--home", str(home.path), "ffff"]) == 2
