"""A standing installation: one clear line for what stands against it, and nothing of a stranger's is touched."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import uuid
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows import server
from flows.session import Session
from flows.standing import control, lost, worker
from flows.standing.api import PrefectApi
from flows.standing.processes import end, members, same_process
from flows.standing.record import Failure, read_installation, standing, write_installation
from flows.standing.services import LEASES, MLFLOW, ROOT, SERVER, Options, check_ports, command, environment
from flows.standing.supervisor import RESTARTS, Supervisor, last_error
from flows.standing.versions import check_versions, own_version, same_version
from storage.errors import BusyError, ConfigError, InputError, PolicylongError, ServiceError
from storage.home import Home
from tests.http_peer import peer
from tests.standing_fakes import free_port, installation, sleepers

__all__ = ["sleepers"]


def one_line(error: pytest.ExceptionInfo[PolicylongError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert error.value.hint
    return text


def test_a_port_that_is_taken_is_named_with_its_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for options, option in (
            (Options(prefect_port=port, mlflow_port=free_port()), "--prefect-port"),
            (Options(prefect_port=free_port(), mlflow_port=port), "--mlflow-port"),
        ):
            with pytest.raises(ServiceError, match=f"port {port} on 127.0.0.1 is taken") as error:
                check_ports(options)
            assert option in one_line(error)
    with pytest.raises(ConfigError, match="both"):
        check_ports(Options(prefect_port=port, mlflow_port=port))


def test_a_second_up_says_where_the_first_one_is(home: Home) -> None:
    first = installation()
    write_installation(home, first)
    with pytest.raises(BusyError, match=first.prefect) as error:
        control.check_can_start(home, Options(prefect_port=free_port(), mlflow_port=free_port()))
    assert "policylong down" in one_line(error)


def test_down_without_up_is_one_line(home: Home) -> None:
    with pytest.raises(InputError, match="nothing is up") as error:
        control.stop(home)
    assert "policylong up" in one_line(error)


def test_up_beside_another_prefect_server_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(prefect_port=free_port(), mlflow_port=free_port())
    with monkeypatch.context() as patch:
        patch.setenv("PREFECT_API_URL", "http://prefect.example/api")
        with pytest.raises(ConfigError, match="PREFECT_API_URL") as error:
            control.check_can_start(home, options)
        assert "policylong deploy" in one_line(error)
    with server._owned(home), pytest.raises(BusyError, match=f"process {os.getpid()}"):
        control.check_can_start(home, options)


def test_down_after_a_crash_ends_what_was_left_and_no_stranger(home: Home, sleepers: Any) -> None:
    dead = psutil.Process()
    crashed = installation(pid=dead.pid, started=dead.create_time() - 3600)
    write_installation(home, crashed)
    ours, theirs = sleepers(crashed.id), sleepers("another")
    assert not crashed.lives
    assert control.stop(home) == 1
    ours.wait(timeout=10)
    assert theirs.poll() is None
    assert read_installation(home) is None


def test_marks_are_inherited_and_services_told_apart(sleepers: Any) -> None:
    mark = uuid.uuid4().hex
    first, second = sleepers(mark, SERVER), sleepers(mark, "worker-a", PREFECT__FLOW_RUN_ID="run")
    assert {process.pid for process in members(mark)} == {first.pid, second.pid}
    assert [process.pid for process in members(mark, services={"worker-a"})] == [second.pid]
    assert lost.flow_runs(members(mark)) == {"run"}
    assert end(members(mark), grace_seconds=10) == 2
    assert not members(mark)


def test_the_guard_ends_everything_when_its_pipe_closes(home: Home, sleepers: Any) -> None:
    mark = uuid.uuid4().hex
    left = sleepers(mark)
    guard = subprocess.Popen(
        command(home, Options(), mark, "guard"),
        env=environment(home, Options(), mark, "guard"),
        stdin=subprocess.PIPE,
    )
    assert left.poll() is None
    guard.communicate()
    assert guard.returncode == 0
    assert left.wait(timeout=10) != 0


def test_no_service_is_told_a_secret_on_its_command_line(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "user:secret")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    options = Options(pools=("policylong-cpu",))
    for service in (SERVER, MLFLOW, "prepare", "guard", "worker-policylong-cpu"):
        line = command(home, options, "mark", service)
        assert "secret" not in " ".join(line)
        assert "0.0.0.0" not in " ".join(line)
    assert environment(home, options, "mark", "worker-policylong-cpu")["PREFECT_API_AUTH_STRING"] == "user:secret"
    assert "PREFECT_API_URL" not in environment(home, options, "mark", SERVER)
    write_installation(home, installation())
    assert "secret" not in (home / "standing/installation.json").read_text()


def test_a_service_that_does_not_come_up_is_named_with_what_it_said(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    failing = [sys.executable, "-c", "import sys; sys.exit('error: the database is of another version')"]
    monkeypatch.setattr("flows.standing.supervisor.command", lambda *given: failing)
    supervisor = Supervisor(home, Options(free_port(), free_port()), uuid.uuid4().hex, pause=lambda seconds: None)
    with pytest.raises(ServiceError, match="the database is of another version") as error:
        supervisor.start()
    assert "prefect-server ended with code 1" in one_line(error)
    supervisor.stop(Failure.of(error.value))
    recorded = read_installation(home)
    assert recorded is not None
    assert recorded.failure is not None
    assert str(recorded.failure.error()) == str(error.value)
    assert not members(supervisor.id)
    assert standing(home) is None


def test_a_service_that_keeps_ending_ends_the_installation(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.standing.supervisor.command", lambda *given: [sys.executable, "-c", ""])
    supervisor = Supervisor(home, Options(), uuid.uuid4().hex, pause=lambda seconds: None)
    supervisor._state = installation()
    supervisor._launch(SERVER)
    with pytest.raises(ServiceError, match=f"ended {RESTARTS + 1} times by itself"):
        supervisor.watch()
    assert sum("restarted" in line for line in (home / "journal.jsonl").read_text().splitlines()) == RESTARTS
    supervisor.stop()


def test_the_last_error_of_a_log_is_one_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_error(log) == ""
    log.write_text("error: first\nTraceback\nerror: port  is taken.\nbye\n")
    assert last_error(log) == "port is taken"


def test_a_worker_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    same_version(own_version())
    check_versions("pool", [own_version()])
    with pytest.raises(ConfigError, match=r"policylong 9\.9 was deployed") as error:
        same_version("9.9")
    assert "policylong deploy" in one_line(error)
    answers = {"/api/admin/version": (200, "3.8.8"), "/api/deployments/filter": (200, [{"version": "9.9"}])}
    with peer(answers) as address, pytest.raises(ConfigError, match=r"9\.9 is deployed to work pool 'pool'"):
        worker.check_worker(f"{address}/api", "pool")
    with pytest.raises(ConfigError, match="nothing is deployed"):
        check_versions("pool", [])


def test_an_unreachable_prefect_and_a_wrong_key_are_one_line_each(
    home_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "wrong-key")
    with pytest.raises(ServiceError, match="does not answer") as away:
        PrefectApi(f"http://127.0.0.1:{free_port()}/api").check()
    assert "PREFECT_API_URL" in one_line(away)
    with peer({"/api/admin/version": (401, {"exception_message": "Unauthorized"})}) as address:
        monkeypatch.setenv("PREFECT_API_URL", f"{address}/api")
        with pytest.raises(ConfigError, match="refuses the credentials") as error, Session(home_path).running():
            pass
        assert "wrong-key" not in one_line(error)
    with peer({"/api/admin/version": (200, "not what was asked for", "text/html")}) as address:
        with pytest.raises(ServiceError, match="expected JSON"):
            PrefectApi(f"{address}/api").check()


def test_an_unreachable_mlflow_stands_against_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    answers = {"/api/admin/version": (200, "3.8.8"), "/api/deployments/filter": (200, [{"version": own_version()}])}
    with peer(answers) as address, pytest.raises(ServiceError, match=r"MLflow at .* does not answer") as error:
        worker.check_worker(f"{address}/api", "pool")
    one_line(error)


def test_who_holds_a_slot_is_known_to_the_next_server(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LEASES, raising=False)
    kept = import_module(environment(home, Options(), "mark", SERVER)[LEASES]).ConcurrencyLeaseStorage
    lease = asyncio.run(kept(tmp_path).create_lease([], timedelta(seconds=300)))
    assert asyncio.run(kept(tmp_path).renew_lease(lease.id, timedelta(seconds=300))), "else Prefect ends the run"
    monkeypatch.setenv(LEASES, "another")
    assert environment(home, Options(), "mark", SERVER)[LEASES] == "another"


def test_a_run_s_processes_import_from_no_folder_of_prefect_s(home: Home, tmp_path: Path) -> None:
    (tmp_path / "storage.py").write_text("")
    (tmp_path / "bootstrap.py").write_text("import storage.digests")
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = [sys.executable, str(tmp_path / "bootstrap.py")]
    assert b"'storage' is not a package" in subprocess.run(run, env=variables, capture_output=True).stderr
    variables |= worker.surroundings(home, "http://prefect.example/api")
    assert subprocess.run(run, env=variables, capture_output=True).returncode == 0
    assert variables["PREFECT_API_URL"] == "http://prefect.example/api"


def test_a_worker_without_a_server_says_what_to_set(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(ConfigError, match="PREFECT_API_URL"):
        worker.prefect_address(home)
    up = installation()
    write_installation(home, up)
    assert worker.prefect_address(home) == f"{up.prefect}/api"


def test_a_number_that_is_another_process_by_now_is_not_the_same() -> None:
    mine = psutil.Process()
    assert same_process(mine.pid, mine.create_time())
    assert not same_process(mine.pid, mine.create_time() - 60)
    assert not same_process(2**22 + 1, 0.0)


def test_commands_use_the_servers_that_are_up_in_their_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    up = installation()
    write_installation(home, up)
    monkeypatch.setattr(server, "_send_what_is_queued", lambda: None)
    with server.prefect_server(home) as address:
        assert address == os.environ["PREFECT_API_URL"] == up.api
        assert os.environ["MLFLOW_TRACKING_URI"] == up.mlflow
    assert "PREFECT_API_URL" not in os.environ
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert not (home / "prefect").exists()
