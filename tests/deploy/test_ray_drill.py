"""The Ray drill sees what it is for: another version, a node that did nothing, a step done twice, a worker left."""

from __future__ import annotations

import argparse
from pathlib import Path

from deploy.drills import ray_drill
from deploy.drills.ray_drill import Outcome
from storage.home import Home
from tests.rounds import build_rounds

CHOSEN = argparse.Namespace(kills=2)


def campaign(path: Path, nodes: tuple[str, ...], *, rounds: int = 2) -> Path:
    """A home with a published campaign whose journal says where shards were computed."""
    home = Home.open(path)
    build_rounds(home, rounds)
    for number, node in enumerate(nodes):
        home.journal({"event": "finished", "step": "verification", "key": f"k{number}"})
        home.journal({"event": "placed", "step": "verification", "key": f"k{number}", "node": f"{node} (abc)"})
    return path


def claims(threads: Path, outcome: Outcome) -> dict[str, bool]:
    return {verdict.claim: verdict.holds for verdict in ray_drill.judge(threads, outcome, CHOSEN)}


def test_equal_campaigns_on_two_nodes_pass(tmp_path: Path) -> None:
    threads = campaign(tmp_path / "threads", ())
    home = campaign(tmp_path / "ray-0", ("10.0.0.1", "10.0.0.2", "10.0.0.1"))
    assert ray_drill.placed(home) == {"10.0.0.1": 2, "10.0.0.2": 1}
    found = claims(threads, Outcome([home], [1.0], ["one", "two"], []))
    assert all(found.values()), found


def test_another_version_an_idle_node_a_step_done_twice_and_a_worker_left_are_seen(tmp_path: Path) -> None:
    threads = campaign(tmp_path / "threads", ())
    home = campaign(tmp_path / "ray-0", ("10.0.0.1",), rounds=1)
    again = Home(home)
    for event in ("finished", "distrusted"):
        again.journal({"event": event, "step": "verification", "key": "k0", "why": "changed"})
    found = claims(threads, Outcome([home], [1.0], ["one"], ["ray::shard"]))
    assert {claim for claim, holds in found.items() if holds} == {
        "round 1 has the version of threads",
        "a round was built",
    }
