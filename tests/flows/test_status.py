"""Status tells what is there and the next command, at every stage of a campaign, and makes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

from flows.journal import journal_size, running_steps, steps_done
from flows.status import status_lines
from storage.campaigns import RoundRecord, record_round, start_campaign
from storage.home import Home

POLICIES = ["a" * 64, "b" * 64, "c" * 64]
VERSIONS = ["1" * 64, "2" * 64]


def text(path: Path) -> str:
    return "\n".join(status_lines(path))


def record(home: Home, number: int, *, trained: bool) -> None:
    following = POLICIES[number] if trained else None
    version, policy = VERSIONS[number - 1], POLICIES[number - 1]
    record_round(home, "trial", RoundRecord(round=number, version=version, policy=policy, next_policy=following))


def test_an_absent_home_is_not_made(home_path: Path) -> None:
    assert "policylong run" in text(home_path)
    assert not home_path.exists()


def test_the_next_command_follows_the_campaign(home: Home) -> None:
    assert text(home.path).endswith("policylong run")
    start_campaign(home, "trial", {"build": {"rounds": 2}, "campaign": {"train": True}})
    record(home, 1, trained=True)
    assert "1 of 2 rounds finished" in text(home.path)
    assert text(home.path).endswith("the same policylong run command as before carries on")
    record(home, 2, trained=True)
    assert "2 of 2 rounds finished" in text(home.path)
    assert text(home.path).endswith("policylong audit 2")


def test_a_campaign_that_waits_for_training_elsewhere_says_so(home: Home) -> None:
    start_campaign(home, "trial", {"build": {"rounds": 2}, "campaign": {"train": False}})
    record(home, 1, trained=False)
    assert f"policylong policy add PATH --trained-on {VERSIONS[0][:12]}" in text(home.path)


def test_a_step_under_way_is_shown_until_it_is_finished(home: Home) -> None:
    home.journal({"event": "started", "step": "verify", "key": "k"})
    assert [running.step for running in running_steps(home)] == ["verify"]
    assert "verify for 0 s" in text(home.path)
    home.journal({"event": "finished", "step": "verify", "key": "k"})
    assert not running_steps(home)


def test_a_step_of_a_dead_process_is_not_running(home: Home) -> None:
    line = {"event": "started", "step": "verify", "key": "k", "pid": os.getpid(), "time": 0.0}
    home.journal(line)
    assert not running_steps(home)


def test_work_done_is_counted_from_a_mark(home: Home) -> None:
    home.journal({"event": "finished", "step": "entropy", "key": "a"})
    mark = journal_size(home)
    assert steps_done(home, since=mark) == 0
    with (home / "journal.jsonl").open("a") as file:
        file.write(json.dumps({"event": "finished", "pid": -1}) + "\n" + '{"cut by a ki\n')
    home.journal({"event": "finished", "step": "entropy", "key": "b"})
    assert steps_done(home, since=mark) == 1
