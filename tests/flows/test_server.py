"""The local Prefect server ends with its command, SIGKILL included, and dead flow runs do not stay Running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows import server
from flows.standing import processes
from flows.standing.processes import Identity
from storage.errors import BusyError, ServiceError
from storage.home import Home

ROOT = Path(__file__).resolve().parents[2]

_START = """
import sys
from pathlib import Path
from flows.environment import prepare
from flows.server import prefect_server
from storage.home import Home

home = Home.open(Path(sys.argv[1]))
prepare(home.path)
with prefect_server(home):
    from prefect.client.orchestration import get_client
    from prefect import flow
    from prefect.states import Running
"""
_KILLED = """
    import os, psutil, signal
    with get_client(sync_client=True) as client:
        client.create_flow_run(flow(lambda: None, name="killed"), name="killed", state=Running())
    print(*[child.pid for child in psutil.Process().children()], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
_AFTER = """
    with get_client(sync_client=True) as client:
        print(*[run.state_name for run in client.read_flow_runs(limit=10, sort="START_TIME_ASC")])
    import psutil
    ours = {process.pid for process in [psutil.Process(), *psutil.Process().children(recursive=True)]}
    open_ports = [c for c in psutil.net_connections("inet") if c.pid in ours and c.status == psutil.CONN_LISTEN]
    print(*{c.laddr.ip for c in open_ports})
    import httpx, os
    page = os.environ["PREFECT_API_URL"].removesuffix("/api")
    print(httpx.get(f"{page}/ui-settings").json()["api_url"].removeprefix(page))
"""

_HEALTHY = """
import http.server, os, socket, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

serving = http.server.HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
serving.socket = socket.socket(fileno=int(sys.argv[1].removeprefix("fd:")))
threading.Thread(target=serving.serve_forever, daemon=True).start()
while os.read(0, 100):
    pass
"""


def python(script: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [sys.executable, "-c", script, str(home)], env=environment, capture_output=True, text=True, timeout=300
    )


def test_a_killed_command_leaves_no_server_and_no_running_flow(home_path: Path) -> None:
    killed = python(_START + _KILLED, home_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    children = [int(pid) for pid in killed.stdout.split()]
    assert children
    assert not psutil.wait_procs([psutil.Process(pid) for pid in children if psutil.pid_exists(pid)], timeout=60)[1]

    after = python(_START + _AFTER, home_path)
    # Every port of a command is on loopback, and its page asks its own server.
    assert after.stdout.split() == ["Crashed", "127.0.0.1", "/api"], after.stderr
    assert not list((home_path / "prefect/processes").iterdir())


def test_a_configured_server_is_used_as_it_is(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example:4200/api")
    with server.prefect_server(home) as address:
        assert address == "http://prefect.example:4200/api"
    assert [path for path in (home / "prefect").rglob("*") if path.is_file()] == []


def test_a_server_that_does_not_start_is_one_clear_error(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "server.py"
    (tmp_path / "server_process.py").write_text("raise SystemExit('no')")
    monkeypatch.setattr(server, "__file__", str(broken))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    with pytest.raises(ServiceError, match="did not start; its log is"), server.prefect_server(home):
        pass
    assert "PREFECT_API_URL" not in os.environ
    assert (home / "prefect/server.log").read_text().strip() == "no"


def test_two_servers_do_not_make_one_database_at_the_same_time(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "server_process.py").write_text(_HEALTHY)
    monkeypatch.setattr(server, "__file__", str(tmp_path / "server.py"))
    monkeypatch.setattr(server, "START_SECONDS", 20.0)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    with server.prefect_server(home), home.lock("prefect-server"), pytest.MonkeyPatch.context() as other:
        other.setattr(server, "START_SECONDS", 0.0)
        # Put back before the server's own end takes it away, or later tests would find it.
        other.delenv("PREFECT_API_URL")
        with pytest.raises(BusyError, match="prefect-server"), server.prefect_server(home):
            pass
    assert "PREFECT_API_URL" not in os.environ


def test_a_process_counts_as_dead_when_another_has_its_number(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Identity.of(os.getpid())
    assert mine is not None
    record = home.folder("prefect/processes") / f"{mine.pid}.json"
    for other in ({"started": mine.started - 3600}, {"place": "another boot"}):
        record.write_text(mine.model_copy(update=other).model_dump_json())
        assert not server._alive(record)
    record.write_text(mine.model_dump_json())
    assert server.living_commands(home) == [mine.pid]
    # A clock that is set moves the start of every process, as psutil tells it.
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: 0.0)
    assert server.living_commands(home) == [mine.pid]
    record.write_text("{")
    assert not server._alive(record)


def test_a_process_is_gone_only_where_that_is_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    known, mine = Identity.of(ended.pid), Identity.of(os.getpid())
    assert known is not None
    assert mine is not None
    assert (known.lives, known.is_gone, mine.is_gone) == (True, False, False)
    ended.kill()
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert known.is_gone, "a zombie is no living process"
    ended.communicate()
    assert known.is_gone
    assert not known.lives
    assert Identity.of(ended.pid) is None
    elsewhere = known.model_copy(update={"place": "another boot"})
    assert (elsewhere.lives, elsewhere.is_gone) == (False, False)
    monkeypatch.setattr(processes, "_place", lambda: "")
    here = Identity.of(os.getpid())
    assert here is not None
    assert (here.lives, here.model_copy(update={"started": 0.0}).is_gone) == (True, False), "nothing tells the machine"
