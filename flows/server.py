"""A Prefect server of our own for the time of one command, with its page, on loopback.

Prefect's own ephemeral server lives on when the command is killed, holds its output open and is hit by Ctrl-C before
the flow can say that it was stopped. Ours does none of that (see ``flows.server_process``). With ``PREFECT_API_URL``
set, no server is started and that one is used; so is the one of an installation that is up in the home
(``flows.standing``).

A flow run whose process was killed stays *Running* in Prefect for ever; the next command in the same home marks it
*Crashed*. On a server of others it marks those only that are certainly its home's (``flows.outside``).
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import ValidationError

from flows.outside import on_a_server_of_others
from flows.standing.processes import Identity
from flows.standing.record import Installation, standing
from storage.errors import ServiceError
from storage.home import Home

PORT = 4200
"""Tried first, since Prefect's documentation names it; any free port else."""
START_SECONDS = 180.0
"""Longest wait for the server; 8 s are usual, 16 s on a fresh database."""


@contextmanager
def prefect_server(home: Home) -> Iterator[str]:
    """Gives the address of the Prefect API to use while the block runs.

    Raises ``ServiceError`` when our own server does not start.
    """
    configured = os.environ.get("PREFECT_API_URL")
    if configured:
        with on_a_server_of_others(home, configured):
            yield configured
        return
    if installation := standing(home):
        with _joined(installation):
            yield installation.api
        return
    with _owned(home) as crashed_before, _served(home) as address:
        if crashed_before and os.environ.get("PREFECT_HOME", "") == str(home / "prefect"):
            mark_crashed()
        yield address


@contextmanager
def _joined(installation: Installation) -> Iterator[None]:
    """Lets the flows of this process use an installation's servers."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    variables = {"PREFECT_API_URL": installation.api, "MLFLOW_TRACKING_URI": installation.mlflow}
    own = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(own)
    try:
        with temporary_settings({PREFECT_API_URL: installation.api}):
            try:
                yield
            finally:
                _send_what_is_queued()
    finally:
        for name in own:
            os.environ.pop(name, None)


@contextmanager
def _served(home: Home) -> Iterator[str]:
    folder = home.folder("prefect")
    log = folder / "server.log"
    environment = {"PREFECT_UI_STATIC_DIRECTORY": str(folder / "ui"), **os.environ}
    environment.setdefault("PREFECT_HOME", str(folder))
    Path(environment["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    with ExitStack() as starting:
        # Two servers that make one database at the same time stand in each other's way.
        starting.enter_context(home.lock("prefect-server", wait_seconds=START_SECONDS))
        with log.open("wb") as output, _listening() as listening:
            port = int(listening.getsockname()[1])
            process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("server_process.py")), f"fd:{listening.fileno()}"],
                pass_fds=(listening.fileno(),),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
        address = f"http://127.0.0.1:{port}/api"
        try:
            # Importing Prefect takes seconds too, and the server needs them to come up.
            from prefect.settings import PREFECT_API_URL, temporary_settings

            _wait_until_healthy(process, port, log)
            starting.close()
            # The variable is for processes that a flow starts: Prefect read its own settings when it was imported.
            os.environ["PREFECT_API_URL"] = address
            with temporary_settings({PREFECT_API_URL: address}):
                try:
                    yield address
                finally:
                    _send_what_is_queued()
        finally:
            os.environ.pop("PREFECT_API_URL", None)
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _send_what_is_queued() -> None:
    """Prefect sends logs and events in the background: the last ones must reach the server before it stops."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()
    EventsWorker.drain_all(timeout=5)


def _listening() -> socket.socket:
    """A socket that listens on loopback, for the server to take over.

    Looking for a free port and leaving it to the server to bind it would give one port to two commands that start at
    the same time, and one of them the other's server.
    """
    for port in (PORT, 0):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
            listening.listen(2048)
        except OSError:
            listening.close()
            continue
        return listening
    raise ServiceError(
        "no free port on 127.0.0.1 for the Prefect server.", hint="policylong doctor looks at the ports."
    )


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/api/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise ServiceError(f"the local Prefect server did not start; its log is {log}.", hint="Run the same command again.")


@contextmanager
def _owned(home: Home) -> Iterator[bool]:
    """Notes that this process runs flows in this home; tells whether one before it ended without saying so."""
    folder = home.folder("prefect/processes")
    dead = [path for path in folder.glob("*.json") if not _alive(path)]
    living = len(list(folder.glob("*.json"))) - len(dead)
    mine, identity = folder / f"{os.getpid()}.json", Identity.of(os.getpid())
    assert identity is not None
    mine.write_text(identity.model_dump_json())
    try:
        yield bool(dead) and living == 0
        for path in dead:
            path.unlink(missing_ok=True)
    finally:
        mine.unlink(missing_ok=True)


def living_commands(home: Home) -> list[int]:
    """Processes that run flows in this home with a server of their own."""
    return sorted(int(path.stem) for path in home.folder("prefect/processes").glob("*.json") if _alive(path))


def _alive(path: Path) -> bool:
    try:
        return Identity.model_validate_json(path.read_text()).lives
    except (OSError, ValidationError):
        return False


def mark_crashed(pools: Collection[str] = ()) -> int:
    """Marks every flow run that Prefect still takes for running as crashed; gives how many.

    To be called only while no flow of this home runs. With ``pools``, runs of other work pools are left alone: their
    workers are on other machines.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import State, StateType
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.states import Crashed

    running = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.CANCELLING])
    only = FlowRunFilter(state=FlowRunFilterState(type=running))
    count = left = 0
    with get_client(sync_client=True) as client:
        while runs := client.read_flow_runs(
            flow_run_filter=only, sort=FlowRunSort.START_TIME_ASC, limit=100, offset=left
        ):
            for run in runs:
                if pools and run.work_pool_name is not None and run.work_pool_name not in pools:
                    left += 1
                    continue
                state: State[None] = Crashed(message="The process was killed; the same command carries on.")
                client.set_flow_run_state(run.id, state, force=True)
                count += 1
    return count
