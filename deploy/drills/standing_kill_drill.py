"""Kills the flow runs, the workers and the Prefect server of a standing installation with SIGKILL at random moments.

    python deploy/drills/standing_kill_drill.py --kills 80                          a small quickstart, again and again
    python deploy/drills/standing_kill_drill.py --kills 10 --target server -- --preset quickstart-small

The campaign runs once in peace (``policylong run``). Then ``policylong up`` in an empty home, and the campaign is
started as the form of Prefect's page does. Whom a kill hits and how long after the one before it follows from
``--seed``; a kill waits until what it is to hit lives. What ended is started again as a person would: the form when the
run has ended, ``policylong up`` when the installation gave up because a service ended too often. When a home has had
its share of kills the campaign runs to its end, ``policylong down``, and the next home follows. Exit code 0 means, for
every home:

- it has the dataset versions of the run in peace, no step was finished twice and none was found damaged,
- MLflow has one run for each round and each training,
- after ``policylong down`` no process of the installation is left, and the audits pass.
"""

from __future__ import annotations

import argparse
import math
import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.checks.standing import mlflow_runs, start_run
from deploy.drills.disturbed_runs import Ground, arguments, as_undisturbed, audits, conclude, ground_of, run_to_end
from deploy.drills.kill_drill import Verdict, console, last_step, policylong
from flows.standing.api import PrefectApi, healthy
from flows.standing.processes import FLOW_RUN, members
from flows.standing.record import Installation, standing
from flows.standing.services import MLFLOW, SERVER, worker_service
from storage.campaigns import load_campaign
from storage.errors import PolicylongError
from storage.home import Home

TARGETS = ("flow", "worker", "server")
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
POLL_SECONDS = 0.2
LIMIT_SECONDS = 3600.0
_HOMES = 4
"""So many times the homes that the shares would fill are begun at most."""
DEPLOYMENT = "campaign/campaign"


@dataclass
class Disturbed:
    """What happened in one home."""

    kills: list[str] = field(default_factory=list)
    starts: int = 0
    """How often the form was sent."""
    ups: int = 0
    ended: str = "no end"


@dataclass
class Installed:
    """An installation in a home that is started again whenever it does not stand."""

    home: Home
    log: Path
    options: Sequence[str]
    ups: int = 0

    def standing(self) -> Installation:
        """What stands now; raises ``SystemExit`` naming the log when it can't be started."""
        if (found := standing(self.home)) is not None:
            return found
        ending = run_to_end(policylong(self.home.path, "up", *self.options), self.log)
        found = standing(self.home)
        if ending.code or found is None:
            raise SystemExit(f"error: policylong up ended with {ending.code}: {ending.line} Its log is {self.log}.")
        self.ups += 1
        return found


def victims(installation: Installation, target: str) -> list[psutil.Process]:
    """Living processes that a kill of this kind may hit."""
    if target == "flow":
        return [process for process in members(installation.id) if FLOW_RUN in _variables(process)]
    wanted = [service for service in installation.services if _is(service.name, target)]
    found = []
    for service in wanted:
        with suppress(psutil.Error):
            process = psutil.Process(service.pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _is(service: str, target: str) -> bool:
    return service == SERVER if target == "server" else service.startswith(worker_service(""))


def _variables(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):  # it ended meanwhile
        return {}


def strike(installation: Installation, target: str, dice: random.Random) -> psutil.Process | None:
    """Kills one process of this kind; ``None`` when none lives."""
    found = sorted(victims(installation, target), key=lambda process: process.pid)
    if not found:
        return None
    victim = dice.choice(found)
    try:
        victim.send_signal(signal.SIGKILL)
    except psutil.Error:  # it ended meanwhile
        return None
    return victim


def run_disturbed(
    installed: Installed, parameters: dict[str, Any], targets: Sequence[str], dice: random.Random, longest: float
) -> Disturbed:
    """Runs the campaign to its end while one process of each of ``targets``, in this order, is killed."""
    outcome = Disturbed()
    run: str | None = None
    due = time.monotonic() + dice.uniform(0, longest)
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        installation = installed.standing()
        api = PrefectApi(installation.api, timeout_seconds=10, pause_seconds=0.1)
        # A server that was just killed is asked again later: that is what it is about.
        with suppress(PolicylongError):
            if not healthy(f"{installation.api}/health"):
                state = "UNKNOWN"
            elif run is None:
                run, state = start_run(api, DEPLOYMENT, parameters), "SCHEDULED"
                outcome.starts += 1
            else:
                state = str(api.read(f"/flow_runs/{run}")["state"]["type"])
            if state == "COMPLETED":
                outcome.ended = state
                break
            if state in FINAL:
                run = None
        if len(outcome.kills) < len(targets) and time.monotonic() >= due:
            target = targets[len(outcome.kills)]
            victim = strike(installation, target, dice)
            if victim is not None:
                outcome.kills.append(f"{target} {victim.pid} in {last_step(installed.home.path)}")
                console.print(f"kill {len(outcome.kills)} of {len(targets)}: {outcome.kills[-1]}")
                due = time.monotonic() + dice.uniform(0, longest)
        time.sleep(POLL_SECONDS)
    outcome.ups = installed.ups
    return outcome


def free_ports(count: int) -> list[int]:
    """Different ports that were free a moment ago."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def form_of(options: Sequence[str]) -> dict[str, Any]:
    """The form of the ``campaign`` deployment that means the same as these options of ``policylong run``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", "-p", default="quickstart")
    parser.add_argument("--set", "-s", action="append", default=[])
    parser.add_argument("--name")
    given = parser.parse_args(list(options))
    preset = Path(given.preset)
    named = {"preset_file": str(preset.absolute())} if preset.suffix == ".yaml" else {"preset": given.preset}
    return {**named, "changes": given.set, "name": given.name}


def drill(
    ground: Ground, parameters: dict[str, Any], targets: Sequence[str], *, share: int, seed: int, longest: float
) -> Iterator[Verdict]:
    """Yields the claims of every home and, in the end, how many kills of each kind there were.

    What is left of a home's share when its campaign has ended falls to the homes after it.
    """
    made: Counter[str] = Counter()
    for number in range(math.ceil(_HOMES * len(targets) / share)):
        if made.total() == len(targets):
            break
        name = f"killed-{number}"
        home, log = Home.open(ground.home(name)), ground.log(name)
        prefect_port, mlflow_port = free_ports(2)
        options = ["--prefect-port", str(prefect_port), "--mlflow-port", str(mlflow_port)]
        installed = Installed(home, log, options)
        dice = random.Random(f"{seed}:{number}")
        installation = installed.standing()
        try:
            outcome = run_disturbed(installed, parameters, targets[made.total() :][:share], dice, longest)
            made.update(kill.split()[0] for kill in outcome.kills)
            yield Verdict(
                f"{name}: the campaign ended well",
                outcome.ended == "COMPLETED",
                f"{len(outcome.kills)} kills, form sent {outcome.starts} times, up {outcome.ups} times",
            )
            installation = installed.standing()
            yield from tracked_once(home, installation, name)
        finally:
            down = run_to_end(policylong(home.path, "down"), log)
        left = members(installation.id)
        yield Verdict(f"{name}: no process is left", not down.code and not left, str(left or ""))
        for verdict in [*as_undisturbed(ground, home.path), *audits(ground, home.path, name)]:
            yield Verdict(f"{name}: {verdict.claim}", verdict.holds, verdict.detail)
    yield Verdict(
        "all kills were made",
        made.total() == len(targets),
        ", ".join(f"{made[target]} of the {target}" for target in TARGETS if made[target]),
    )


def tracked_once(home: Home, installation: Installation, name: str) -> Iterator[Verdict]:
    """Whether MLflow has one run of each kind for every round."""
    counts = {
        f"{kind} {record.round}": len(
            mlflow_runs(installation.mlflow, {"policylong.version": record.version, "policylong.kind": kind})
        )
        for record in load_campaign(home).rounds
        for kind in ("round", "training")
    }
    wrong = {what: count for what, count in counts.items() if count != 1}
    yield Verdict(f"{name}: {MLFLOW} has one run of each", not wrong, str(wrong or f"{len(counts)} runs"))


def main(given: Sequence[str] | None = None) -> int:
    """Runs the drill; 0 when every claim holds, else 1."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--kills", type=int, default=80, help="SIGKILLs in all (80)")
    parser.add_argument("--share", type=int, default=10, help="kills in one home (10)")
    parser.add_argument("--longest", type=float, default=20.0, help="longest time between two kills, seconds (20)")
    parser.add_argument("--target", choices=TARGETS, action="append", help="whom to kill; may be given several times")
    chosen = parser.parse_args(given)
    ground = ground_of(chosen)
    dice = random.Random(chosen.seed)
    wanted = chosen.target or list(TARGETS)
    targets = [wanted[number % len(wanted)] for number in range(chosen.kills)]
    dice.shuffle(targets)
    form = form_of(ground.options)
    found = drill(ground, form, targets, share=chosen.share, seed=chosen.seed, longest=chosen.longest)
    return conclude(ground, found, keep=chosen.keep)


if __name__ == "__main__":
    sys.exit(main())
