"""The process that starts an installation's services, watches them, and ends them.

Prefect server and MLflow server → runs of killed processes marked, flows deployed → a worker per work pool → watch

A service that ends by itself is started again, a few times; after that the installation ends and says why. The record
in the home (``flows.standing.record``) tells the commands. When this process is killed, the guard ends the others.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

import psutil

from flows.standing.api import PrefectApi, check_mlflow, healthy
from flows.standing.lost import carry_on_lost_runs, orphaned_runs
from flows.standing.processes import end, flow_runs, members
from flows.standing.record import Failure, Installation, Service, log_path, write_installation
from flows.standing.services import (
    GUARD,
    HOST,
    MLFLOW,
    PREPARE,
    SERVER,
    Options,
    check_ports,
    command,
    environment,
    mlflow_address,
    own_mlflow,
    worker_service,
)
from flows.standing.versions import own_version
from storage.addresses import without_credentials
from storage.errors import PolicylongError, ServiceError
from storage.home import Home

START_SECONDS = 240.0
"""Longest wait for a service to answer; a slow machine with a fresh database needs half a minute."""
GRACE_SECONDS = 15.0
_UVICORN = "ERROR:  "
_RAISED = re.compile(r"\(?[\w.]*[A-Z]\w*(?:Error|Exception)\)?:? ")
"""A traceback's last line, or SQLAlchemy's quotation of a driver's error."""
RESTARTS, RESTART_WINDOW_SECONDS = 5, 600.0
"""A service that ends by itself more often than this is broken. Ours."""


@dataclass
class Supervisor:
    """An installation while its processes live. ``start``, ``watch`` and, whatever happens, ``stop``."""

    home: Home
    options: Options
    id: str
    pause: Callable[[float], None] = time.sleep
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _ended: dict[str, deque[float]] = field(default_factory=dict)
    _orphans: dict[str, set[str]] = field(default_factory=dict)
    """Work pool → its flow runs whose process lives on without the worker that started it."""
    _state: Installation | None = None

    def start(self) -> Installation:
        """Starts everything and returns the installation; raises ``ServiceError`` for what does not come up."""
        mine = psutil.Process()
        self._state = Installation(
            id=self.id,
            version=own_version(),
            state="starting",
            pid=mine.pid,
            started=mine.create_time(),
            prefect=f"http://{HOST}:{self.options.prefect_port}",
            mlflow=mlflow_address(self.options),
            pools=self.options.pools,
        )
        self._record()
        check_ports(self.options)
        if not own_mlflow():
            check_mlflow(self._state.mlflow)
        for service in (GUARD, SERVER, *([MLFLOW] if own_mlflow() else [])):
            self._launch(service)
        self._wait(SERVER, lambda: healthy(f"{self._api.address}/health"))
        self._prepare()
        for pool in self.options.pools:
            self._launch(worker_service(pool))
        for pool in self.options.pools:
            self._wait(worker_service(pool), partial(self._serves, pool))
        if own_mlflow():
            self._wait(MLFLOW, lambda: healthy(f"{mlflow_address(self.options)}/health"))
        return self._record(state="up")

    def watch(self) -> None:
        """Starts again what ends by itself, for ever; raises ``ServiceError`` when a service keeps ending."""
        while True:
            self.pause(0.5)
            for name, child in list(self._children.items()):
                if child.poll() is not None and self._attended(name):
                    self._restart(name, child.returncode)
            self._look_after_orphans()

    def stop(self, failure: Failure | None = None) -> int:
        """Ends every process of the installation, flow runs first; returns how many there were."""
        last = members(self.id, services={SERVER, MLFLOW, GUARD})
        # A flow run that is asked to end tells the server so: the servers go last.
        count = end([process for process in members(self.id) if process not in last], grace_seconds=GRACE_SECONDS)
        for child in self._children.values():
            self._close(child)
        count += end(members(self.id), grace_seconds=GRACE_SECONDS)
        for child in self._children.values():
            child.wait()
        if failure is not None and self._state is not None:
            self._record(state="failed", failure=failure)
        return count

    @property
    def _api(self) -> PrefectApi:
        return PrefectApi(f"http://{HOST}:{self.options.prefect_port}/api")

    def _launch(self, service: str) -> None:
        with log_path(self.home, service).open("ab") as log:
            self._children[service] = subprocess.Popen(
                command(self.home, self.options, self.id, service),
                env=environment(self.home, self.options, self.id, service),
                # The server and the guard end when this pipe closes.
                stdin=subprocess.PIPE if service in (SERVER, GUARD) else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.home.path,
            )
        self._record()

    @staticmethod
    def _close(child: subprocess.Popen[bytes]) -> None:
        if child.stdin is not None:
            child.stdin.close()

    def _wait(self, service: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._children[service].poll() is not None:
                raise self._not_up(service, f"ended with code {self._children[service].returncode}")
            if ready():
                return
            self.pause(0.2)
        raise self._not_up(service, f"did not answer in {START_SECONDS:.0f} s")

    def _prepare(self) -> None:
        self._launch(PREPARE)
        child = self._children.pop(PREPARE)
        deadline = time.monotonic() + START_SECONDS
        while child.poll() is None and time.monotonic() < deadline:
            self.pause(0.1)
        if child.poll() != 0:
            child.kill()
            raise self._not_up(PREPARE, f"ended with code {child.wait()}")

    def _serves(self, pool: str) -> bool:
        workers = self._api.post(f"/work_pools/{pool}/workers/filter", {})
        pid = self._children[worker_service(pool)].pid
        return any(worker["status"] == "ONLINE" and worker["name"].endswith(f"-{pid}") for worker in workers)

    def _restart(self, service: str, code: int) -> None:
        ended = self._ended.setdefault(service, deque(maxlen=RESTARTS + 1))
        ended.append(time.monotonic())
        if len(ended) > RESTARTS and ended[-1] - ended[0] < RESTART_WINDOW_SECONDS:
            raise self._not_up(service, f"ended {len(ended)} times by itself, the last time with code {code}")
        self._close(self._children[service])
        self.home.journal({"event": "restarted", "service": service, "code": code})
        self.pause(min(2.0 ** (len(ended) - 1), 30.0))
        self._launch(service)

    def _attended(self, service: str) -> bool:
        """Carries on what died with a worker, as long as no other one works; false while the server is away.

        A worker is of no use without the server, which may have ended at the same time and comes first.
        """
        pool = service.removeprefix(worker_service(""))
        if pool == service:
            return True
        if not healthy(f"{self._api.address}/health"):
            return False
        try:
            carry_on_lost_runs(self._api, pool, self.id)
            self._orphans[pool] = orphaned_runs(self._api, pool, self.id)
        except ServiceError:
            return False
        return True

    def _look_after_orphans(self) -> None:
        living = flow_runs(members(self.id)) if any(self._orphans.values()) else set()
        for pool, runs in self._orphans.items():
            if gone := runs - living:
                try:
                    carry_on_lost_runs(self._api, pool, self.id, only=gone)
                except ServiceError:  # the server is away: asked again
                    continue
                runs -= gone

    def _not_up(self, service: str, what: str) -> PolicylongError:
        log = log_path(self.home, service)
        said = last_error(log)
        return ServiceError(f"{service} {what}{f' ({said})' if said else ''}; its log is {log}.", hint="policylong up.")

    def _record(self, *, state: str | None = None, failure: Failure | None = None) -> Installation:
        assert self._state is not None
        services = []
        for name, child in self._children.items():
            try:
                started = psutil.Process(child.pid).create_time()
            except psutil.Error:
                continue
            restarts = len(self._ended.get(name, ()))
            services.append(Service(name=name, pid=child.pid, started=started, restarts=restarts))
        update = {"services": tuple(services), "failure": failure, "state": state or self._state.state}
        self._state = self._state.model_copy(update=update)
        write_installation(self.home, self._state)
        return self._state


def last_error(log: Path) -> str:
    """What a log says last about an error, in one line; "" when it says nothing.

    A line of ours is better than the exception that a library ended with, and that is better than what uvicorn says.
    """
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        lines = file.read().decode(errors="replace").splitlines()
    reported = [line for line in lines if line.lower().startswith("error: ")]
    own = [line for line in reported if not line.startswith(_UVICORN)]
    raised = [line for line in lines if _RAISED.match(line)]
    for found in (own, raised, reported):
        if found:
            line = re.sub("^error: ", "", " ".join(found[-1].split()), flags=re.IGNORECASE)
            return without_credentials(line)[:400].rstrip(".")
    return ""


def supervise(home: Home, options: Options, installation: str, on_up: Callable[[Installation], None]) -> None:
    """Runs an installation until this process is asked to end or a service keeps failing.

    Raises what ``Supervisor.start`` and ``Supervisor.watch`` raise, after everything was ended and recorded.
    """
    supervisor = Supervisor(home, options, installation)
    failure: Failure | None = None
    with home.lock("standing"):
        try:
            on_up(supervisor.start())
            supervisor.watch()
        except PolicylongError as error:
            failure = Failure.of(error)
            raise
        except OSError as error:
            failure = Failure(kind="ResourceError", message=f"policylong up: {error}.")
            raise
        finally:
            supervisor.stop(failure)


def main(home_path: str, installation: str, options: str) -> int:
    """The process of an installation that was started in the background; its options are JSON."""
    from flows.failures import report

    signal.signal(signal.SIGTERM, _interrupt)
    given = json.loads(options)
    try:
        chosen = Options(**{**given, "pools": tuple(given["pools"])})
        supervise(Home.open(Path(home_path)), chosen, installation, lambda _: None)
    except KeyboardInterrupt:
        return 0
    except (PolicylongError, OSError) as error:
        return report(error)
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    # Asked a second time while it ends what it started, it still does that first.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
