"""Credentials: taken from the environment, told to nobody."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli import main
from flows.environment import prepare, take_credentials_apart
from flows.failures import report
from flows.links import mlflow_links
from flows.standing import control, services
from flows.standing.record import Failure, Installation, write_installation
from storage.addresses import split_credentials, without_credentials
from storage.errors import ConfigError, PolicylongError, ServiceError
from storage.home import Home
from storage.tracking import Tracking
from storage.vectors import IndexConfig
from tests.planted import WORD, files_with
from tests.standing_fakes import free_port, installation

MINE = "http://keeper:planted-word%2F1@127.0.0.1:9"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Variables that code under test sets are taken back."""
    for name in ("PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", os.environ["PREFECT_HOME"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("PREFECT_API_URL", "")
    return


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("MLflow at http://me:word@host:5000 is gone", "MLflow at http://…@host:5000 is gone"),
        ("postgresql+psycopg://me:w/o@rd@db/x?sslmode=on", "postgresql+psycopg://…@db/x?sslmode=on"),
        ("https://token@hub.example/a", "https://…@hub.example/a"),
        ("postgresql://db/x?user=me&password=word&sslmode=on", "postgresql://db/x?user=me&password=…&sslmode=on"),
        ("http://host:4200/api, mail a@b.example", "http://host:4200/api, mail a@b.example"),
        ("sqlite:////data/home/mlflow.db", "sqlite:////data/home/mlflow.db"),
    ],
)
def test_addresses_are_shown_without_user_and_password(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


def test_credentials_of_an_address_go_where_the_clients_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://me:p%40ss@prefect.example:4200/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://you:word@mlflow.example/base")
    prepare(tmp_path / "home")
    assert os.environ["PREFECT_API_URL"] == "http://prefect.example:4200/api"
    assert os.environ["PREFECT_API_AUTH_STRING"] == "me:p@ss"
    assert os.environ["MLFLOW_TRACKING_URI"] == "https://mlflow.example/base"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("you", "word")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://other:one@mlflow.example")
    take_credentials_apart()
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "word", "a variable that is set wins"
    database = "postgresql://me:word@db/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    take_credentials_apart()
    assert os.environ["MLFLOW_TRACKING_URI"] == database
    assert split_credentials("http://[::1") == ("http://[::1", None)


@pytest.mark.parametrize("command", [["run", "--preset", "quickstart-small"], ["worker", "policylong-cpu"], ["up"]])
def test_a_prefect_server_that_is_away_is_named_without_its_password(
    command: list[str], home: Home, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", MINE)
    code = main(["--home", str(home.path), *command])
    shown = capfd.readouterr()
    assert code == (2 if command == ["up"] else 4), shown.err
    assert "127.0.0.1:9" in shown.err
    assert "keeper" not in shown.out + shown.err
    assert WORD not in shown.out + shown.err
    assert files_with(home.path) == {}


def test_what_mlflow_and_others_say_of_an_address_loses_the_password(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ServiceError) as error:
        Tracking(home, MINE, attempts=1).find_version("0" * 64)
    assert "does not answer" in str(error.value)
    assert WORD not in str(error.value)
    assert WORD not in Failure.of(error.value).model_dump_json()
    for other in (
        sqlite3.OperationalError(f"no connection to {MINE}"),
        ValueError(f"a defect that names {MINE}"),
    ):
        report(other)
    assert WORD not in capsys.readouterr().err
    assert mlflow_links("run") == []


def test_an_index_address_with_a_password_is_refused_unseen(
    home_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="QDRANT_API_KEY"):
        IndexConfig(engine="server", url=MINE)
    changes = ["--set", "index.engine=server", "--set", f"index.url={MINE}"]
    assert main(["--home", str(home_path), "run", *changes]) == 2
    shown = capsys.readouterr().err
    assert "index" in shown
    assert WORD not in shown


def test_an_installation_does_not_write_a_database_s_password_down(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:{WORD}@db/mlflow")
    with pytest.raises(ConfigError, match="MLFLOW_BACKEND_STORE_URI") as error:
        control.check_can_start(home, services.Options(free_port(), free_port()))
    assert WORD not in str(error.value)


def test_every_error_of_ours_is_safe_to_record(home: Home) -> None:
    error = PolicylongError(f"{MINE} is away.", hint=f"Look at {MINE}.")
    assert WORD not in f"{error} {error.message} {error.hint}"
    record: Installation = installation().model_copy(update={"failure": Failure.of(error)})
    write_installation(home, record)
    assert files_with(home.path) == {}
