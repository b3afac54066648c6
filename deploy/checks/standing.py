"""A standing installation from beginning to end: up, a campaign started as the form of Prefect's page does, its rounds
looked up in both servers, down, no process left.

python deploy/checks/standing.py [--home FOLDER] [--preset quickstart-small] [--approve] [--prefect-port 4200]

Prints a line a claim and leaves with 1 when one does not hold. The home is a new temporary folder where none is given.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from flows.standing.api import PrefectApi  # noqa: E402
from flows.standing.processes import members  # noqa: E402
from flows.standing.record import Installation, read_installation  # noqa: E402
from storage.campaigns import Campaign, load_campaign  # noqa: E402
from storage.home import Home  # noqa: E402

LIMIT_SECONDS = 3600.0
ARTIFACTS = ("round-report", "round-funnel", "training-report")


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that must hold."""

    holds: bool
    claim: str


def policylong(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a home."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.cli", "--home", str(home), *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, cwd=ROOT)


def start_run(api: PrefectApi, deployment: str, parameters: dict[str, Any]) -> str:
    """Starts a deployment (``flow/name``) as its form does; returns the flow run's id."""
    found = api.read(f"/deployments/name/{deployment}")
    made = api.post(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
    return str(made["id"])


def wait_for(
    api: PrefectApi, run: str, *, approve: bool, pause: float = 1.0, meanwhile: Callable[[], object] = lambda: None
) -> tuple[str, int]:
    """Waits for a flow run's end, resuming it where it waits for approval; returns its state and the pauses."""
    deadline, pauses = time.monotonic() + LIMIT_SECONDS, 0
    while time.monotonic() < deadline:
        state = api.read(f"/flow_runs/{run}")["state"]
        if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return f"{state['type']} {state.get('message') or ''}".strip(), pauses
        if approve and state["type"] == "PAUSED" and _asks(api, run, state):
            pauses += 1
            api.post(f"/flow_runs/{run}/resume", {"run_input": {"carry_on": True, "remark": f"round {pauses}"}})
        meanwhile()
        time.sleep(pause)
    return "no end", pauses


def listening(installation: str) -> set[str]:
    """``address:port`` of every TCP port that processes of an installation listen on now."""
    numbers = {process.pid for process in members(installation)}
    found = (c for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN and c.pid in numbers)
    return {f"{connection.laddr.ip}:{connection.laddr.port}" for connection in found if connection.laddr}


def _asks(api: PrefectApi, run: str, state: dict[str, Any]) -> bool:
    """Whether the question of a pause is there already: it is written after the state."""
    keyset = state["state_details"]["run_input_keyset"]
    found = api.post(f"/flow_runs/{run}/input/filter", {"prefix": keyset["schema"], "limit": 1})
    return bool(found)


def claims_of(installation: Installation, campaign: Campaign, rounds: int) -> Iterator[Claim]:
    """What both servers must show of a finished campaign."""
    yield Claim(
        len(campaign.rounds) == rounds and all(record.next_policy for record in campaign.rounds),
        f"{rounds} rounds are recorded and trained on",
    )
    api = PrefectApi(installation.api)
    for key in ARTIFACTS:
        found = api.post("/artifacts/filter", {"artifacts": {"key": {"any_": [key]}}})
        told = sum(record.version[:12] in str(artifact) for record in campaign.rounds for artifact in found)
        yield Claim(told >= rounds, f"Prefect shows {key} of every round")
    names = {run["name"] for run in api.post("/flow_runs/filter", {"limit": 200})}
    for number in range(1, rounds + 1):
        for kind in ("build", "train"):
            name = f"{kind} {campaign.name} round {number}"
            yield Claim(name in names, f"Prefect shows a flow run called {name}")
    for record in campaign.rounds:
        for kind in ("round", "training"):
            tags = {"policylong.version": record.version, "policylong.kind": kind}
            yield Claim(len(mlflow_runs(installation.mlflow, tags)) == 1, f"MLflow shows the {kind} {record.round}")


def mlflow_runs(address: str, tags: dict[str, str]) -> list[dict[str, Any]]:
    """Runs of all experiments with these tags."""
    api = f"{address}/api/2.0/mlflow"
    experiments = httpx.post(f"{api}/experiments/search", json={"max_results": 100}).json()["experiments"]
    body = {
        "experiment_ids": [experiment["experiment_id"] for experiment in experiments],
        "filter": " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items()),
    }
    return list(httpx.post(f"{api}/runs/search", json=body).json().get("runs", []))


def check(home: Path, parameters: dict[str, Any], options: Sequence[str], *, approve: bool) -> Iterator[Claim]:
    """Up, a campaign, down; yields what holds and what does not."""
    begun = time.monotonic()
    up = policylong(home, "up", *options)
    yield Claim(up.returncode == 0, f"up after {time.monotonic() - begun:.0f} s {up.stderr if up.returncode else ''}")
    installation = read_installation(Home(home))
    if up.returncode or installation is None:
        return
    try:
        api = PrefectApi(installation.api)
        begun = time.monotonic()
        ports = listening(installation.id)
        state, pauses = wait_for(
            api,
            start_run(api, "campaign/campaign", parameters),
            approve=approve,
            meanwhile=lambda: ports.update(listening(installation.id)),
        )
        yield Claim(
            state.startswith("COMPLETED"), f"the campaign ended after {time.monotonic() - begun:.0f} s: {state}"
        )
        on_loopback = bool(ports) and all(port.startswith(("127.", "::1:")) for port in ports)
        yield Claim(on_loopback, f"every port is on loopback: {', '.join(sorted(ports))}")
        if state.startswith("COMPLETED"):
            campaign = load_campaign(Home(home))
            rounds = int(campaign.config["build"]["rounds"])
            yield from claims_of(installation, campaign, rounds)
            if approve:
                notes = len(list((home / "campaigns/approvals" / campaign.name).glob("*.json")))
                yield Claim(notes == rounds, f"{notes} versions were approved, {pauses} of them now")
        status = policylong(home, "status")
        yield Claim(installation.prefect in status.stdout, "status names Prefect's address")
    finally:
        begun = time.monotonic()
        down = policylong(home, "down")
    yield Claim(down.returncode == 0, f"down after {time.monotonic() - begun:.0f} s {down.stderr}".strip())
    left = members(installation.id)
    yield Claim(not left, f"no process is left {left or ''}".strip())


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="a new folder")
    parser.add_argument("--preset", default="quickstart-small")
    parser.add_argument("--preset-file", type=Path)
    parser.add_argument("--approve", action="store_true", help="ask after every version, and say yes")
    parser.add_argument("--direct", action="store_true", help="train in the campaign's run, not by the deployment")
    parser.add_argument("--prefect-port", default="4200")
    parser.add_argument("--mlflow-port", default="5000")
    given = parser.parse_args(arguments)
    parameters: dict[str, Any] = {"preset": given.preset, "approve": given.approve}
    if given.preset_file:
        parameters["preset_file"] = str(given.preset_file.absolute())
    if given.direct:
        parameters["hand_off"] = "direct"
    options = ["--prefect-port", given.prefect_port, "--mlflow-port", given.mlflow_port]
    with tempfile.TemporaryDirectory(prefix="policylong-standing-") as folder:
        failed = 0
        for claim in check(given.home or Path(folder) / "home", parameters, options, approve=given.approve):
            print(f"{'yes' if claim.holds else 'NO '}  {claim.claim}", flush=True)
            failed += not claim.holds
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
