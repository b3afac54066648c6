"""Takes Qdrant and MLflow away from a running campaign, for a minute and for good, and shows that it carries on.

    python deploy/drills/services_drill.py                                  both, one after the other
    python deploy/drills/services_drill.py --service mlflow --seconds 30

MLflow is its own server in a process that is killed and started again. Qdrant is ``deploy/drills/qdrant_peer.py``: the
product's requests over HTTP, answered by Qdrant's engine; away, it refuses connections. The command is stopped
(SIGSTOP) where it is about to need the service, the service goes, and the command goes on:

- in round 1 the service is back after ``--seconds``: the command has to go on by itself;
- in the last round it does not come back: the command has to end with exit code 4 and one line; then the service is
  there again, and the same command is given.

Exit code 0 means that this held, and that the home has the versions of a run in peace, which used neither of the two.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.drills.disturbed_runs import (
    Ground,
    Running,
    arguments,
    as_undisturbed,
    audits,
    begin,
    carried_on,
    conclude,
    ground_of,
    refusal,
    run_to_end,
    with_variables,
)
from deploy.drills.kill_drill import POLL_SECONDS, ROOT, Verdict, events, start
from deploy.drills.qdrant_peer import QdrantPeer
from deploy.drills.standing_kill_drill import free_ports
from flows.standing.api import healthy
from storage.errors import ServiceError
from storage.tracked_calls import PATIENCE

LIMIT_SECONDS = 1800.0
_FAST = POLL_SECONDS / 4


class Service(Protocol):
    """Something that a campaign needs and that can be away."""

    address: str

    def back(self) -> None:
        """Is there from now on."""

    def away(self) -> None:
        """Is not there from now on."""


class MlflowServer:
    """MLflow's server as ``policylong up`` starts it, on a home of its own."""

    def __init__(self, home: Path, log: Path) -> None:
        (self.port,) = free_ports(1)
        self.address = f"http://127.0.0.1:{self.port}"
        self._home, self._log = home, log
        self._process: subprocess.Popen[bytes] | None = None

    def back(self) -> None:
        """Starts it and waits until it answers."""
        module = [sys.executable, "-P", "-m", "flows.standing.mlflow_process"]
        command = [*module, str(self._home), "127.0.0.1", str(self.port)]
        self._process = start(with_variables(command, PYTHONPATH=str(ROOT)), self._log)
        while not healthy(f"{self.address}/health"):
            if self._process.poll() is not None:
                raise SystemExit(f"error: MLflow's server ended; its log is {self._log}.")
            time.sleep(POLL_SECONDS)

    def away(self) -> None:
        """Kills it and what it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def stop_before(running: Running, home: Path, step: str, event: str, count: int) -> bool:
    """Waits for the journal's ``count``-th event of a step and stops the command; whether it was still going on."""
    while running.process.poll() is None:
        if sum(e.get("step") == step and e.get("event") == event for e in events(home)) >= count:
            os.killpg(running.process.pid, signal.SIGSTOP)
            return True
        time.sleep(_FAST)
    return False


def drill(
    ground: Ground, name: str, service: Service, command: Sequence[str], step: str, event: str, seconds: float
) -> Iterator[Verdict]:
    """The claims about one service; the command needs it right after the ``event`` of a ``step``."""
    home, log = ground.home(name), ground.log(name)
    wanted = [e for e in events(ground.undisturbed) if e.get("step") == step and e.get("event") == event]
    service.back()
    running = begin(command, log)
    if stop_before(running, home, step, event, 1):
        service.away()
        os.killpg(running.process.pid, signal.SIGCONT)
        timer = threading.Timer(seconds, service.back)
        timer.start()
        timer.join()
        survived = running.process.poll() is None
        yield Verdict(f"{name} away for {seconds:.0f} s: the command goes on", survived, f"at the first {step}")
    if stop_before(running, home, step, event, len(wanted)):
        service.away()
        os.killpg(running.process.pid, signal.SIGCONT)
        begun = time.monotonic()
        ending = running.wait()
        waited = time.monotonic() - begun
        verdict = refusal(f"{name} away for good: one line after {waited:.0f} s", ending, ServiceError.exit_code)
        yield verdict
        service.back()
    else:
        yield Verdict(f"{name} away for good", False, running.wait().line)
    yield carried_on(f"with {name} there, the same command ends well", run_to_end(command, log))
    for verdict in as_undisturbed(ground, home):
        yield Verdict(f"{name}: {verdict.claim}", verdict.holds, verdict.detail)


def qdrant(ground: Ground, seconds: float) -> Iterator[Verdict]:
    """Qdrant away when a retrieval is about to begin."""
    peer = QdrantPeer(ground.scratch / "qdrant")
    peer.back()
    options = ["--set=index.engine=server", f"--set=index.url={peer.address}"]
    try:
        command = [*ground.command(ground.home("Qdrant")), *options]
        yield from drill(ground, "Qdrant", peer, command, "retrieval", "started", seconds)
        yield Verdict("Qdrant was used", peer.requests > 0, f"{peer.requests} requests")
        yield from audits(ground, ground.home("Qdrant"), "audit-qdrant")
    finally:
        peer.close()


def mlflow(ground: Ground, seconds: float, patience: float) -> Iterator[Verdict]:
    """MLflow away when a round is about to be published."""
    server = MlflowServer(ground.home("mlflow-server"), ground.log("mlflow-server"))
    variables = {"MLFLOW_TRACKING_URI": server.address, PATIENCE: str(patience)}
    try:
        command = with_variables(ground.command(ground.home("MLflow")), **variables)
        yield from drill(ground, "MLflow", server, command, "assembly", "finished", seconds)
    finally:
        server.away()


def main(given: Sequence[str] | None = None) -> int:
    """Runs the drill; 0 when every claim holds, else 1."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--service", choices=("qdrant", "mlflow"), action="append", help="which (both)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it is away in round 1 (60)")
    parser.add_argument("--patience", type=float, default=120.0, help="how long MLflow is asked again, seconds (120)")
    chosen = parser.parse_args(given)
    ground = ground_of(chosen)
    wanted = chosen.service or ["qdrant", "mlflow"]
    parts = []
    if "qdrant" in wanted:
        parts.append(qdrant(ground, chosen.seconds))
    if "mlflow" in wanted:
        parts.append(mlflow(ground, chosen.seconds, chosen.patience))
    return conclude(ground, *parts, keep=chosen.keep)


if __name__ == "__main__":
    sys.exit(main())
