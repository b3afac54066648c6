"""An installation in lines: what is up and where, which flow runs go on and how far, what failed, what waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flows.standing.api import PrefectApi
from flows.standing.processes import carries, same_process
from flows.standing.record import Installation, read_installation
from storage.errors import PolicylongError
from storage.home import Home

_SHOWN = 8
"""Flow runs of a kind that are shown."""
_LIVE = ["RUNNING", "PENDING", "CANCELLING"]
_FAILED = ["FAILED", "CRASHED"]


@dataclass(frozen=True, slots=True)
class Overview:
    """What an installation does; ``next`` is the next thing to do about it, "" when there is nothing."""

    services: tuple[str, ...]
    runs: tuple[str, ...] = ()
    next: str = ""


def welcome(installation: Installation) -> str:
    """What ``policylong up`` prints: addresses and what to do next."""
    page = installation.prefect
    workers = ", ".join(installation.pools)
    return "\n".join(
        [
            f"Prefect  {page}",
            f"MLflow   {installation.mlflow}",
            f"workers  {workers}",
            "",
            f"start a campaign    {page}/deployments → campaign → Run → Custom run",
            f"every night         {page}/deployments → campaign → switch its schedule on",
            "look                policylong status",
            "end                 policylong down",
        ]
    )


def overview(home: Home) -> Overview | None:
    """The installation of a home as it is now; ``None`` when none was started."""
    found = read_installation(home)
    if found is None:
        return None
    if not found.lives:
        why = f": {found.failure.message}" if found.failure else ": its process was killed"
        return Overview((f"down{why}",), next="policylong up starts it again, policylong down clears what is left")
    services = tuple(_services(found))
    if found.state != "up":
        return Overview(services, next="wait; this command shows when it is up")
    try:
        return _with_runs(found, services)
    except PolicylongError as error:
        return Overview((*services, error.message), next="policylong down, then policylong up")


def _services(found: Installation) -> Iterator[str]:
    yield f"{found.state}: Prefect {found.prefect}, MLflow {found.mlflow}"
    for service in found.services:
        lives = "up" if same_process(service.pid, service.started) or carries(service.pid, found.id) else "ended"
        again = f", started again {service.restarts} times" if service.restarts else ""
        yield f"{service.name} {lives}, process {service.pid}{again}"


def _with_runs(found: Installation, services: tuple[str, ...]) -> Overview:
    api = PrefectApi(found.api)
    running, paused = _runs(api, _LIVE), _runs(api, ["PAUSED"])
    waiting = [run for run in _runs(api, ["SCHEDULED"]) if run["state_name"] != "Scheduled" or _due(run)]
    failed = _runs(api, _FAILED)[:_SHOWN]
    lines = [_running_line(api, run) for run in running]
    lines += [f"{run['name']}: waits for approval, {found.prefect}/runs/flow-run/{run['id']}" for run in paused]
    lines += [f"{run['name']}: {run['state_name'].lower()}" for run in waiting]
    lines += [f"{run['name']}: {run['state_name'].lower()}, {_message(run)}" for run in failed]
    if paused:
        following = f"look at {found.prefect}/runs/flow-run/{paused[0]['id']} and resume it there"
    elif running or waiting:
        following = "wait; this command shows how far it is"
    elif failed:
        following = f"{found.prefect}/runs/flow-run/{failed[0]['id']} says what failed; Retry there carries on"
    else:
        following = f"start a campaign: {found.prefect}/deployments"
    return Overview(services, tuple(lines), following)


def _runs(api: PrefectApi, states: list[str]) -> list[dict[str, Any]]:
    """Runs of deployments in one of these states, latest first; those below them are told with them."""
    wanted = {
        "state": {"type": {"any_": states}},
        "deployment_id": {"is_null_": False},
        "parent_task_run_id": {"is_null_": True},
    }
    found = api.post("/flow_runs/filter", {"flow_runs": wanted, "sort": "EXPECTED_START_TIME_DESC", "limit": 50})
    return list(found)


def _due(run: dict[str, Any]) -> bool:
    when = run.get("next_scheduled_start_time") or run.get("expected_start_time")
    return when is not None and datetime.fromisoformat(when) <= datetime.now(UTC)


def _running_line(api: PrefectApi, run: dict[str, Any]) -> str:
    seconds = run.get("estimated_run_time") or 0.0
    below = {"parent_flow_run_id": {"any_": [run["id"]]}, "state": {"type": {"any_": _LIVE}}}
    children = api.post("/flow_runs/filter", {"flow_runs": below, "limit": 1})
    now = children[0] if children else run
    tasks = {"flow_runs": {"id": {"any_": [now["id"]]}}}
    done = api.post("/task_runs/count", {**tasks, "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}})
    current = api.post("/task_runs/filter", {**tasks, "task_runs": {"state": {"type": {"any_": ["RUNNING"]}}}})
    names = [task["name"] for task in current if task["name"] != now["name"]]
    step = f": {names[0]}" if names else ""
    where = f"{now['name']}, " if children else ""
    return f"{run['name']} for {seconds:.0f} s: {where}{done} steps done{step}"


def _message(run: dict[str, Any]) -> str:
    text = " ".join(str((run.get("state") or {}).get("message") or "no reason given").split())
    return text.removeprefix("Flow run encountered an exception: ")[:300]
