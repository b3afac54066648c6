"""What an installation says when something of its surroundings is wrong: one line that names it, and no secret.

Here the commands are given, and what starts a process is looked after. Each of the checks by itself, and what its line
names, is in tests/flows/test_standing.py; a Qdrant that is away or refuses its key in tests/storage/test_vectors.py and
test_qdrant_peers.py; an MLflow in tests/deploy/test_services_drill.py; a PostgreSQL below and in
deploy/drills/postgres_drill.py.
"""

from __future__ import annotations

import socket
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows import server
from flows.cli import main
from flows.standing import supervisor
from flows.standing.api import PrefectApi
from flows.standing.processes import carries, members
from flows.standing.record import Failure, standing, write_installation
from flows.standing.services import SERVER, Options
from flows.standing.supervisor import Supervisor, last_error
from flows.standing.versions import own_version
from storage.errors import ServiceError
from storage.home import Home
from tests.http_peer import peer
from tests.standing_fakes import free_port, installation, sleepers

__all__ = ["sleepers"]
Said = Callable[..., tuple[int, str]]

VERSION = (200, "3.8.8")
OTHERS = {"/api/admin/version": VERSION, "/api/deployments/filter": (200, [{"version": "9.9"}])}
OURS = {"/api/admin/version": VERSION, "/api/deployments/filter": (200, [{"version": own_version()}])}
REFUSING = {"/api/admin/version": (401, {"exception_message": "Unauthorized"})}
PREFECT_WITHOUT_POSTGRESQL = """\
ERROR:    Traceback (most recent call last):
  File "asyncpg/connect_utils.py", line 969, in _connect_addr
ConnectionRefusedError: [Errno 111] Connect call failed ('127.0.0.1', 5432)

ERROR:    Application startup failed. Exiting.
"""
MLFLOW_WITHOUT_POSTGRESQL = """\
2026/11/23 15:39:10 WARNING mlflow.store.db.utils: SQLAlchemy engine could not be created.
(psycopg.OperationalError) connection failed: connection to server at "127.0.0.1", port 5432 failed: Connection refused
\tIs the server running on that host and accepting TCP/IP connections?
(Background on this error at: https://sqlalche.me/e/21/e3q8)
Operation will be retried in 25.5 seconds
"""


@pytest.fixture
def said(home_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """Gives a command in the home; returns its exit code and its one line, and no process may be left of it."""
    monkeypatch.setenv("PREFECT_API_KEY", "wrong-key")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def give(*words: str, **variables: str) -> tuple[int, str]:
        before = set(psutil.Process().children(recursive=True))
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            code = main(["--home", str(home_path), *words])
        (line,) = capsys.readouterr().err.splitlines()
        assert set(psutil.Process().children(recursive=True)) <= before
        assert line.startswith("error: ")
        assert line.rstrip(".").count(". ") >= 1, "what is wrong, and what to do"
        assert "wrong-key" not in line
        return code, line

    return give


def test_what_stands_against_up_and_down_is_one_line_and_nothing_is_started(home: Home, said: Said) -> None:
    code, line = said("down")
    assert (code, "nothing is up" in line) == (2, True), line
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, line = said("up", "--prefect-port", port, "--mlflow-port", str(free_port()))
        assert (code, f"port {port} on 127.0.0.1 is taken" in line, "--prefect-port" in line) == (4, True, True), line
    code, line = said("up", PREFECT_API_URL="http://prefect.example/api")
    assert (code, "PREFECT_API_URL" in line) == (2, True), line
    write_installation(home, first := installation())
    code, line = said("up", "--prefect-port", str(free_port()), "--mlflow-port", str(free_port()))
    assert (code, first.prefect in line, "policylong down" in line) == (6, True, True), line


def test_what_stands_against_a_worker_or_a_run_is_one_line(said: Said) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    for words in (("worker", "pool"), ("run", "--preset", "quickstart-small"), ("deploy",)):
        code, line = said(*words, PREFECT_API_URL=f"{away}/api")
        assert (code, f"Prefect at {away}/api does not answer" in line) == (4, True), line
        with peer(REFUSING) as address:
            code, line = said(*words, PREFECT_API_URL=f"{address}/api")
        assert (code, "refuses the credentials" in line) == (2, True), line
    with peer(OTHERS) as address:
        code, line = said("worker", "pool", PREFECT_API_URL=f"{address}/api")
    assert (code, "9.9 is deployed to work pool 'pool'" in line) == (2, True), line
    with peer(OURS) as address:
        code, line = said("worker", "pool", PREFECT_API_URL=f"{address}/api", MLFLOW_TRACKING_URI=away)
    assert (code, f"MLflow at {away} does not answer" in line) == (4, True), line


@pytest.mark.parametrize("told", [PREFECT_WITHOUT_POSTGRESQL, MLFLOW_WITHOUT_POSTGRESQL])
def test_an_unreachable_postgresql_is_named_in_the_line_of_the_service_that_needs_it(
    home: Home, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    failing = [sys.executable, "-c", f"import sys; sys.stderr.write({told!r}); sys.exit(3)"]
    monkeypatch.setattr(supervisor, "command", lambda *given: failing)
    starting = Supervisor(home, Options(free_port(), free_port()), uuid.uuid4().hex, pause=lambda seconds: None)
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1.*5432") as error:
        starting.start()
    starting.stop(Failure.of(error.value))
    text = str(error.value)
    assert "\n" not in text
    assert "its log is" in text
    assert "Traceback" not in text
    assert not members(starting.id)


def test_two_commands_at_the_same_instant_never_get_one_port() -> None:
    with server._listening() as first, server._listening() as second:
        ports = {listening.getsockname()[1] for listening in (first, second)}
        assert len(ports) == 2
        with pytest.raises(OSError), socket.create_server(("127.0.0.1", ports.pop())):
            pass


def test_what_a_log_says_last_is_ours_first_and_has_no_password(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(f"error: the home is of format 9.\n{PREFECT_WITHOUT_POSTGRESQL}")
    assert last_error(log) == "the home is of format 9"
    log.write_text("ERROR:    [Errno 98] address already in use\n")
    assert last_error(log) == "[Errno 98] address already in use"
    log.write_text("sqlalchemy.exc.ArgumentError: can't reach postgresql://user:a-secret@host/db\n")
    assert "a-secret" not in last_error(log)
    assert "host/db" in last_error(log)


def test_an_installation_is_known_by_its_mark_when_the_clock_was_set(home: Home, sleepers: Any) -> None:
    mark = uuid.uuid4().hex
    process = sleepers(mark)
    record = installation(psutil.Process(process.pid), id=mark, started=0.0)
    write_installation(home, record)
    assert carries(process.pid, mark)
    assert standing(home) == record
    process.kill()
    process.wait()
    assert not carries(process.pid, mark)
    assert standing(home) is None


@pytest.fixture
def watched(home: Home, sleepers: Any) -> Iterator[Supervisor]:
    made = Supervisor(home, Options(), uuid.uuid4().hex, pause=lambda seconds: None)
    made._state = installation(id=made.id)
    yield made
    made.stop()


def test_a_worker_is_started_again_only_when_its_server_is_there(watched: Supervisor, monkeypatch: Any) -> None:
    lost: list[tuple[str, Any]] = []

    def carried_on(api: PrefectApi, pool: str, mark: str, only: Any = None) -> None:
        lost.append((pool, only))

    monkeypatch.setattr(supervisor, "carry_on_lost_runs", carried_on)
    monkeypatch.setattr(supervisor, "orphaned_runs", lambda *given: {"run"})
    watched.options = Options(prefect_port=free_port())
    assert watched._attended(SERVER)
    assert not watched._attended("worker-a")
    assert lost == []
    with peer({"/api/health": (200, True)}) as address:
        watched.options = Options(prefect_port=int(address.rpartition(":")[2]))
        assert watched._attended("worker-a")
        assert lost == [("a", None)]
        watched._look_after_orphans()
    assert lost == [("a", None), ("a", {"run"})], "its process does not live: nobody else would report it"
    watched._look_after_orphans()
    assert len(lost) == 2


def test_a_run_that_outlived_its_worker_is_looked_after_until_it_ends(
    watched: Supervisor, monkeypatch: Any, sleepers: Any
) -> None:
    lost: list[Any] = []
    monkeypatch.setattr(supervisor, "carry_on_lost_runs", lambda api, pool, mark, only: lost.append(only))
    process = sleepers(watched.id, "worker-a", PREFECT__FLOW_RUN_ID="run")
    watched._orphans["a"] = {"run"}
    watched._look_after_orphans()
    assert lost == []
    process.kill()
    process.wait()
    watched._look_after_orphans()
    assert lost == [{"run"}]
