"""The production files: what they promise can be read from them, and what they say is what the programs understand."""

from __future__ import annotations

import re
import shlex
import socket
import tomllib
import warnings
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml
from packaging.version import Version

from flows.cli import app
from flows.commands import register_all
from flows.deploying import read_deployments
from flows.standing import health
from flows.standing.services import LEASES
from storage.errors import ConfigError, PolicylongError, ServiceError
from tests.http_peer import peer

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "deploy/compose.yaml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
IMAGE = re.compile(r"[a-z0-9./-]+:v?\d+(\.\d+)+(-[a-z]+)*")
SECRET = re.compile(r"PASSWORD|KEY|TOKEN|AUTH|SECRET|URI|URL")
OPTIONAL = {"HF_TOKEN"}
each_service = pytest.mark.parametrize("name", SERVICES)


@each_service
def test_a_service_is_watched_pinned_and_bound_to_loopback_or_not_at_all(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries"} <= service["healthcheck"].keys()
    assert IMAGE.fullmatch(service["image"]), service["image"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert not {"privileged", "network_mode", "pid", "cap_add", "devices", "env_file"} & service.keys()
    assert all(":" in volume and not volume.startswith(("/", ".", "~")) for volume in service.get("volumes", []))


@each_service
def test_what_is_ours_runs_without_rights_on_a_read_only_image(name: str) -> None:
    service = SERVICES[name]
    if service["image"].startswith("policylong:"):
        assert service["image"] == f"policylong:{PROJECT['version']}"
        assert (service["read_only"], service["cap_drop"], service["init"]) == (True, ["ALL"], True)
        assert service["build"]["dockerfile"] == "deploy/Dockerfile"
    else:
        assert service["networks"] == ["inside"], "databases and vectors are reached by ours alone"
        assert "ports" not in service


@each_service
def test_no_password_stands_in_the_file_and_none_has_a_default(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        for inserted in re.findall(r"\$\{([^}]*)\}", str(value)):
            required = re.fullmatch(r"\w+:\?.+", inserted)
            assert required or inserted.removesuffix(":-") in OPTIONAL, f"{variable}: {inserted}"
        plain = re.sub(r"\$\{[^}]*\}", "", str(value))
        if re.search(r"PASSWORD|KEY|TOKEN|AUTH|SECRET", variable):
            assert plain == "", variable
        for credentials in re.findall(r"://([^@/]*)@", str(value)):
            assert re.fullmatch(r"\w+:\$\{\w+:\?[^}]+\}", credentials), variable
    words = " ".join(map(str, SERVICES[name].get("command", [])))
    assert "$" not in words, "a command line is seen by every user of the machine"
    assert not SECRET.search(words)


def test_every_variable_is_documented_and_required_ones_by_their_meaning() -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    variables = set(re.findall(r"\$\{(\w+)", TEXT))
    assert len(variables) >= 4
    assert not {name for name in variables if f"`{name}`" not in page}


def test_environments_name_settings_that_the_programs_have() -> None:
    import mlflow.environment_variables
    from prefect.settings import Settings
    from prefect.settings.legacy import _get_valid_setting_names

    known = _get_valid_setting_names(Settings)
    for service in SERVICES.values():
        for variable in service.get("environment", {}):
            if variable.startswith("PREFECT_"):
                assert variable in known, variable
            if variable.startswith("MLFLOW_") and variable != "MLFLOW_BACKEND_STORE_URI":
                assert hasattr(mlflow.environment_variables, variable), variable


def test_who_holds_a_slot_outlives_the_prefect_server() -> None:
    service = SERVICES["prefect-server"]
    kept = service["environment"]["PREFECT_HOME"]
    assert service["environment"][LEASES].endswith(".filesystem")
    assert f"prefect:{kept}" in service["volumes"]
    assert re.search(rf"--owner policylong .*{kept}\b", DOCKERFILE), "a new volume belongs to whom the image says"


@each_service
def test_command_lines_are_understood_by_the_programs(name: str) -> None:
    command = SERVICES[name].get("command", [])
    if command[:1] == ["sh"]:
        parts = [shlex.split(part.replace("exec ", "")) for part in command[2].split("&&")]
    else:
        parts = [command] if command else []
    for program, *arguments in parts:
        understood(program, arguments)
    check = SERVICES[name]["healthcheck"]["test"]
    if "python" in check:
        assert check[1:5] == ["python", "-P", "-m", health.__name__]


def understood(program: str, arguments: list[str]) -> None:
    """Raises unless the program knows the command and every option; nothing is run."""
    if program == "prefect":
        from prefect.cli.server import server_app

        assert arguments[0] == "server"
        server_app.parse_args(arguments[1:], exit_on_error=False, print_error=False)
        return
    group: Any
    if program == "mlflow":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about type hints of its own
            import mlflow.cli

        group = mlflow.cli.cli
    else:
        assert program == "policylong"
        register_all(app)
        group = typer.main.get_command(app)
    command = group.commands[arguments[0]]
    command.make_context(arguments[0], arguments[1:], resilient_parsing=False).close()


def test_a_wrong_option_would_be_seen() -> None:
    from cyclopts.exceptions import CycloptsError

    for program, words, said in (
        ("prefect", "server start --hots x", CycloptsError),
        ("mlflow", "server --hots x", click.UsageError),
        ("policylong", "wrk", KeyError),
    ):
        with pytest.raises(said):
            understood(program, words.split())


def test_every_work_pool_has_a_worker_that_is_asked_for_it() -> None:
    pools = set(read_deployments().pools)
    served = {
        str(service["command"][-1]).rsplit(" ", 1)[-1]: service
        for service in SERVICES.values()
        if "policylong worker" in " ".join(service.get("command", []))
    }
    assert served.keys() == pools
    for pool, service in served.items():
        assert service["healthcheck"]["test"][-2:] == ["--pool", pool]
    volumes = yaml.safe_load(TEXT)["volumes"].keys()
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert mounted == volumes
    ours = {volume.split(":")[1] for s in SERVICES.values() if "build" in s for volume in s.get("volumes", [])}
    made = next(line for line in DOCKERFILE.splitlines() if "install --directory" in line)
    assert all(folder in made for folder in ours), "a volume takes its owner from the image's folder"


def test_the_qdrant_server_is_one_that_the_client_knows() -> None:
    server, client = Version(SERVICES["qdrant"]["image"].split(":v")[1]), Version(PINS["qdrant-client"])
    assert server.major == client.major
    assert abs(server.minor - client.minor) <= 1, "Qdrant promises compatibility with the next minor version"


def test_the_image_has_stages_a_user_a_health_check_and_the_tested_versions() -> None:
    lines = [line for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert IMAGE.fullmatch(bases[0])
    last = lines[[n for n, line in enumerate(lines) if line.startswith("FROM ")][-1] :]
    assert next(line for line in last if line.startswith(("USER", "HEALTHCHECK", "CMD"))) == "USER 10001:10001"
    assert any(line.startswith("HEALTHCHECK") and health.__name__ in line for line in last)
    assert not [line for line in last if line.startswith(("ARG", "ADD")) or "pip install" in line]
    installs = [line for line in lines if "pip install" in line]
    assert installs
    assert all("--constraint constraints.txt" in line for line in installs)
    assert {"asyncpg", "psycopg", "psycopg-binary"} <= PINS.keys()
    wanted = " ".join(PROJECT["optional-dependencies"]["postgres"])
    assert "asyncpg" in wanted
    assert "psycopg[binary]" in wanted


def test_the_image_is_made_of_files_that_are_there_and_let_through() -> None:
    let_through = {
        line.removeprefix("!").rstrip("/")
        for line in (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for line in DOCKERFILE.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert copied == let_through
    assert all((ROOT / source).exists() for source in copied)
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert copied >= {*wheel["packages"], *wheel["force-include"]}


def test_the_health_check_asks_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = f"pool-{socket.gethostname()}-7"
    answers: dict[str, Any] = {
        "/health": (200, "OK"),
        "/api/admin/version": (200, "3.8.8"),
        "/api/work_pools/pool/workers/filter": lambda body: [{"name": mine, "status": "ONLINE"}],
        "/api/work_pools/left/workers/filter": lambda body: [
            {"name": f"left-{socket.gethostname()}-7", "status": "OFFLINE"},
            {"name": "left-elsewhere-7", "status": "ONLINE"},
        ],
    }
    with peer(answers) as address:
        monkeypatch.setenv("PREFECT_API_URL", f"{address}/api")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        for question in ([], [f"{address}/health"], ["--pool", "pool"]):
            health.check(question)
        for question, told in (([f"{address}/nothing"], "does not answer"), (["--pool", "left"], "no worker of")):
            with pytest.raises(ServiceError, match=told):
                health.check(question)
        answers["/api/ready"] = (503, {"message": "Database is not available"})
        with pytest.raises(ServiceError, match="its database does not answer"):
            health.check([])
        answers["/api/ready"] = (200, {"message": "OK"})
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        with pytest.raises(ServiceError, match="MLflow"):
            health.check([])
    with pytest.raises(ConfigError, match="is no question"):
        health.check(["pool"])
    monkeypatch.delenv("PREFECT_API_URL")
    with pytest.raises(PolicylongError, match="PREFECT_API_URL is not set"):
        health.check([])
