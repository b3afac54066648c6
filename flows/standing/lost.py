"""Flow runs whose process died together with its worker: Prefect takes them for running for ever."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from flows.standing.api import PrefectApi
from flows.standing.processes import flow_runs, members

RUNS = 3
"""A run that was started so often is left crashed: something in it ends its worker. Ours."""
UNDER_WAY = {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}


def carry_on_lost_runs(
    api: PrefectApi, pool: str, installation: str, *, only: Collection[str] | None = None
) -> list[str]:
    """Marks a pool's runs without a process as crashed and lets the pool's worker take them up again.

    Returns their names. What they had finished is not done again. A run whose process lives on without its worker is
    left alone: it reports its end by itself (see ``orphaned_runs``). The pool must have no worker at work, here or
    elsewhere, unless ``only`` these runs are looked at.
    """
    living = flow_runs(members(installation))
    found = _under_way(api, pool)
    lost = [run for run in found if run["id"] not in living and (only is None or run["id"] in only)]
    for run in lost:
        for child in _children(api, run["id"]):
            _set(api, child["id"], {"type": "CRASHED", "message": "The process was killed."})
        _set(api, run["id"], {"type": "CRASHED", "message": "The process and its worker were killed."})
        if run["deployment_id"] and run["run_count"] < RUNS:
            _set(api, run["id"], {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Carried on."})
    return [str(run["name"]) for run in lost]


def orphaned_runs(api: PrefectApi, pool: str, installation: str) -> set[str]:
    """Ids of a pool's runs whose process lives, asked when the worker that started them is gone.

    Nobody reports it when such a process is killed.
    """
    return flow_runs(members(installation)) & {str(run["id"]) for run in _under_way(api, pool)}


def _under_way(api: PrefectApi, pool: str) -> list[dict[str, Any]]:
    asked = {"flow_runs": UNDER_WAY, "work_pools": {"name": {"any_": [pool]}}}
    return list(api.post("/flow_runs/filter", asked))


def _children(api: PrefectApi, parent: str) -> list[dict[str, Any]]:
    below = {**UNDER_WAY, "parent_flow_run_id": {"any_": [parent]}}
    found = list(api.post("/flow_runs/filter", {"flow_runs": below}))
    return [*found, *(deeper for run in found for deeper in _children(api, run["id"]))]


def _set(api: PrefectApi, run: str, state: dict[str, Any]) -> None:
    api.post(f"/flow_runs/{run}/set_state", {"state": state, "force": True})
