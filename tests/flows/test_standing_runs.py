"""What an installation says about its flow runs, and what becomes of those that died with their worker."""

from __future__ import annotations

import uuid
from typing import Any

import psutil

from flows.standing import lost, overview
from flows.standing.api import PrefectApi
from flows.standing.record import Service, write_installation
from storage.home import Home
from tests.http_peer import peer
from tests.standing_fakes import installation, sleepers

__all__ = ["sleepers"]


def test_status_of_an_installation_that_is_gone_names_the_next_command(home: Home) -> None:
    assert overview.overview(home) is None
    mine = psutil.Process()
    write_installation(home, installation(started=mine.create_time() - 3600))
    found = overview.overview(home)
    assert found is not None
    assert "killed" in found.services[0]
    assert "policylong up" in found.next


def test_status_tells_runs_approvals_and_failures(home: Home) -> None:
    run = {"id": "1", "name": "campaign a", "estimated_run_time": 12.0, "state_name": "Running"}
    answers = {"/api/task_runs/count": (200, 7), "/api/task_runs/filter": (200, [{"name": "entropy a shard 2 of 3"}])}

    def runs(body: dict[str, Any]) -> list[dict[str, Any]]:
        states = body["flow_runs"]["state"]["type"]["any_"]
        if "parent_flow_run_id" in body["flow_runs"]:
            return [{"id": "2", "name": "build a round 1"}]
        if "RUNNING" in states:
            return [run]
        if "PAUSED" in states:
            return [{**run, "name": "campaign b"}]
        if "FAILED" in states:
            message = "Flow run encountered an exception: ConfigError: no."
            return [{**run, "name": "audit c", "state_name": "Failed", "state": {"message": message}}]
        return []

    with peer({**answers, "/api/flow_runs/filter": runs}) as address:
        mine = psutil.Process()
        service = Service(name="guard", pid=mine.pid, started=mine.create_time())
        write_installation(home, installation(prefect=address, services=(service,)))
        found = overview.overview(home)
    assert found is not None
    assert found.services[1].startswith("guard up")
    assert found.runs == (
        "campaign a for 12 s: build a round 1, 7 steps done: entropy a shard 2 of 3",
        f"campaign b: waits for approval, {address}/runs/flow-run/1",
        "audit c: failed, ConfigError: no.",
    )
    assert "resume it there" in found.next


def test_runs_that_died_with_their_worker_are_carried_on_and_living_ones_left(sleepers: Any) -> None:
    mark = uuid.uuid4().hex
    sleepers(mark, "worker-a", PREFECT__FLOW_RUN_ID="lives")
    top = [{"id": name, "name": name, "deployment_id": "d", "run_count": 1} for name in ("lives", "lost")]
    top.append({"id": "often", "name": "often", "deployment_id": "d", "run_count": 3})
    below = {"lost": [{"id": "child"}]}
    states: list[tuple[str, str]] = []

    def runs(body: dict[str, Any]) -> list[dict[str, Any]]:
        parents = body["flow_runs"].get("parent_flow_run_id", {}).get("any_")
        return below.get(parents[0], []) if parents else top

    def told(name: str) -> Any:
        return lambda body: states.append((name, body["state"]["type"])) or {}

    names = ("lost", "often", "child")
    answers = {f"/flow_runs/{name}/set_state": told(name) for name in names}
    with peer({"/flow_runs/filter": runs, **answers}) as address:
        assert lost.carry_on_lost_runs(PrefectApi(address), "a", mark) == ["lost", "often"]
    assert states == [("child", "CRASHED"), ("lost", "CRASHED"), ("lost", "SCHEDULED"), ("often", "CRASHED")]


def test_a_server_whose_database_is_locked_is_asked_again() -> None:
    asked: list[str] = []

    def locked_twice(body: dict[str, Any]) -> Any:
        asked.append("asked")
        return (503, {"exception_message": "database is locked"}) if len(asked) < 3 else (200, {"state": "known"})

    with peer({"/flow_runs/filter": locked_twice}) as address:
        assert PrefectApi(address, pause_seconds=0).post("/flow_runs/filter", {}) == {"state": "known"}
    assert len(asked) == 3
