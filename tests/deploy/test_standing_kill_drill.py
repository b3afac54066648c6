"""The drill that kills an installation's processes, with sleeping processes and a server that says what a test says."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.drills import standing_kill_drill
from deploy.drills.standing_kill_drill import Installed, form_of, run_disturbed, victims
from flows.standing.record import Installation, Service, write_installation
from flows.standing.services import SERVER
from storage.home import Home
from tests.http_peer import peer
from tests.standing_fakes import installation, sleepers

__all__ = ["sleepers"]
WORKER = "worker-policylong-cpu"


@pytest.fixture
def standing(home: Home, sleepers: Any) -> Callable[[str], Installation]:
    """An installation of a server, two workers and a flow run, all asleep; its Prefect answers at an address."""

    def made(address: str) -> Installation:
        mark = uuid.uuid4().hex
        processes = {name: sleepers(mark, name) for name in (SERVER, WORKER, f"{WORKER}-2")}
        sleepers(mark, WORKER, PREFECT__FLOW_RUN_ID="run")
        services = tuple(
            Service(name=name, pid=process.pid, started=psutil.Process(process.pid).create_time())
            for name, process in processes.items()
        )
        up = installation(id=mark, prefect=address, services=services)
        write_installation(home, up)
        return up

    return made


def test_each_kind_of_kill_hits_its_kind_of_process(standing: Callable[[str], Installation]) -> None:
    up = standing("http://127.0.0.1:1")
    pids = {service.name: service.pid for service in up.services}
    assert [process.pid for process in victims(up, "server")] == [pids[SERVER]]
    assert {process.pid for process in victims(up, "worker")} == {pids[WORKER], pids[f"{WORKER}-2"]}
    (flow,) = victims(up, "flow")
    assert flow.pid not in pids.values()
    struck = standing_kill_drill.strike(up, "server", random.Random(0))
    assert struck is not None
    struck.wait(timeout=10)
    assert standing_kill_drill.strike(up, "server", random.Random(0)) is None, "a dead one is not hit again"


def test_the_form_is_sent_again_until_the_campaign_has_ended_well(
    home: Home, standing: Callable[[str], Installation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_kill_drill, "POLL_SECONDS", 0.01)
    sent: list[dict[str, Any]] = []
    states = iter(["RUNNING", "CRASHED", "RUNNING", "RUNNING", "COMPLETED"])

    def started(body: dict[str, Any]) -> dict[str, Any]:
        sent.append(body["parameters"])
        return {"id": "run"}

    answers: dict[str, Any] = {
        "/api/health": (200, True),
        "/api/deployments/name/campaign/campaign": (200, {"id": "d"}),
        "/api/deployments/d/create_flow_run": started,
        "/api/flow_runs/run": lambda body: {"state": {"type": next(states)}},
    }
    form = {"preset": "quickstart"}
    with peer(answers) as address:
        standing(address)
        outcome = run_disturbed(Installed(home, tmp_path / "log", []), form, ["worker", "flow"], random.Random(0), 0.0)
    assert outcome.ended == "COMPLETED"
    assert sent == [form, form]
    assert [kill.split()[0] for kill in outcome.kills] == ["worker", "flow"]


def test_the_form_means_what_the_options_of_the_command_mean() -> None:
    assert form_of(["--preset=small", "--set=a=1", "--set", "b=2"]) == {
        "preset": "small",
        "changes": ["a=1", "b=2"],
        "name": None,
    }
    assert form_of(["-p", "/x/own.yaml", "--name", "n"]) == {"preset_file": "/x/own.yaml", "changes": [], "name": "n"}
