"""The PostgreSQL drill where there is no PostgreSQL: what it needs, what it tells, and whom it tells the password."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.drills import postgres_cluster, postgres_drill
from deploy.drills.postgres_cluster import Cluster, find_program
from deploy.drills.postgres_drill import Attempt, Servers
from tests.deploy.test_compose import SERVICES, understood

WORD = "planted-word"


@pytest.fixture
def servers(tmp_path: Path) -> Servers:
    return Servers(Cluster(tmp_path, 5432, tmp_path / "pg_ctl", None, WORD), tmp_path, 4201, 5001)


def test_without_postgresql_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(postgres_cluster, "INSTALLED", str(tmp_path / "lib"))
    with pytest.raises(SystemExit, match=r"no initdb and no pg_ctl found\. Debian: apt-get install postgresql"):
        Cluster.make(tmp_path / "postgres")
    assert not (tmp_path / "postgres").exists()
    for version in ("9.6", "15", "17"):
        (tmp_path / f"lib/{version}/bin").mkdir(parents=True)
        (tmp_path / f"lib/{version}/bin/initdb").write_text("")
    assert find_program("initdb") == tmp_path / "lib/17/bin/initdb"


def test_the_password_is_told_to_the_servers_by_their_environment_alone(servers: Servers) -> None:
    for name, command in servers.commands().items():
        assert WORD not in " ".join(command), name
        assert "127.0.0.1" in command, name
        understood(command[2], command[3:])
    assert sum(WORD in value for value in servers.environment().values()) == 2
    assert not any(WORD in value for value in servers.client().values())
    assert WORD not in repr(servers)


def test_the_drill_runs_what_the_compose_file_runs(servers: Servers) -> None:
    production = {name: service["command"] for name, service in SERVICES.items() if "command" in service}
    for name, mine in (("prefect-server", "prefect"), ("mlflow", "mlflow")):
        options = {word for word in servers.commands()[mine] if word.startswith("--")}
        assert options == {word for word in production[name] if word.startswith("--")}
    databases = {"PREFECT_SERVER_DATABASE_CONNECTION_URL", "MLFLOW_BACKEND_STORE_URI"}
    assert databases <= servers.environment().keys()
    for name in databases:
        (value,) = [service["environment"][name] for service in SERVICES.values() if name in service["environment"]]
        assert value.split("://")[0] == servers.environment()[name].split("://")[0], "the same driver"


@pytest.mark.parametrize(
    ("said", "clear"),
    [
        ("home x\nerror: MLflow at y does not answer. Start it.", True),
        ("error: one\nerror: two", False),
        ("Traceback (most recent call last)\nerror: it broke", False),
        ("error: it broke\nand more", False),
        ("", False),
    ],
)
def test_one_clear_line_is_one_clear_line(said: str, clear: bool) -> None:
    assert Attempt(4, said, 1.0).one_line is clear


def test_a_password_in_a_file_is_found_outside_of_postgresql_s_own(tmp_path: Path) -> None:
    for name in ("postgres/data", "home/a", "server.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"x{WORD}x" if name != "home/a" else "")
    assert postgres_drill.files_with(tmp_path, WORD.encode(), tmp_path / "postgres") == ["server.log"]
