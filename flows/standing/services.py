"""What an installation consists of: the command, the environment and the port of each service."""

from __future__ import annotations

import os
import site
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows.standing.processes import MARK, SERVICE
from storage.errors import ConfigError, ServiceError
from storage.home import Home
from storage.tracking import DATABASE

HOST = "127.0.0.1"
PREFECT_PORT = 4200
"""The port that Prefect's documentation names."""
MLFLOW_PORT = 5000
"""The port that MLflow's documentation names."""
SERVER, MLFLOW, PREPARE, GUARD = "prefect-server", "mlflow-server", "prepare", "guard"
SUPERVISOR = "supervisor"
LEASES = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"
"""Where Prefect's server notes who holds a deployment's slot. In its memory, as by default, the notes are lost with a
server that is killed: Prefect then ends a long run because it can't renew its slot, and a slot may stay taken for ever.
"""
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Options:
    """What ``policylong up`` was asked for."""

    prefect_port: int = PREFECT_PORT
    mlflow_port: int = MLFLOW_PORT
    pools: tuple[str, ...] = ()
    """Work pools that get a worker here; none: all that deploy/prefect.yaml names."""


def worker_service(pool: str) -> str:
    """Name of the service that serves a work pool."""
    return f"worker-{pool}"


def own_mlflow() -> bool:
    """Whether the installation has an MLflow server of its own: unless one is named by ``MLFLOW_TRACKING_URI``."""
    return not os.environ.get("MLFLOW_TRACKING_URI")


def mlflow_address(options: Options) -> str:
    """Where MLflow answers: its own server's address, or ``MLFLOW_TRACKING_URI``."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"http://{HOST}:{options.mlflow_port}"


def check_ports(options: Options) -> None:
    """Raises ``ServiceError`` naming a port that is taken and by whom, ``ConfigError`` for one port given twice."""
    ports = {"--prefect-port": options.prefect_port}
    if own_mlflow():
        ports["--mlflow-port"] = options.mlflow_port
    if len(set(ports.values())) < len(ports):
        raise ConfigError(f"--prefect-port and --mlflow-port are both {options.prefect_port}.", hint="Give two.")
    for option, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise ServiceError(
                    f"port {port} on {HOST} is taken{_by_whom(port)}.", hint=f"Give another {option}, or end it."
                ) from error


def _by_whom(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and getattr(connection.laddr, "port", None) == port
                and connection.pid
            ):
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    return ""


def environment(home: Home, options: Options, installation: str, service: str) -> dict[str, str]:
    """The environment of a service: this process's, the mark, the home, and where the servers answer."""
    prefect = home.folder("prefect")
    variables = {"PREFECT_UI_STATIC_DIRECTORY": str(prefect / "ui"), **os.environ}
    variables |= {
        MARK: installation,
        SERVICE: service,
        "POLICYLONG_HOME": str(home.path),
        "PREFECT_LOGGING_LEVEL": "INFO",
    }
    # A checkout that is not installed has its packages found by this; they are installed otherwise.
    if str(ROOT) not in site.getsitepackages():
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    if service == SERVER:
        variables.setdefault(LEASES, "prefect.server.concurrency.lease_storage.filesystem")
        return variables
    if secret := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        variables.setdefault("PREFECT_API_AUTH_STRING", secret)
    if service == SUPERVISOR:
        return variables
    variables["PREFECT_API_URL"] = f"http://{HOST}:{options.prefect_port}/api"
    if service != MLFLOW:
        variables["MLFLOW_TRACKING_URI"] = mlflow_address(options)
    return variables


def command(home: Home, options: Options, installation: str, service: str) -> list[str]:
    """The command line of a service; no secret is in it."""
    if service == SERVER:
        return [sys.executable, "-P", str(ROOT / "flows" / "server_process.py"), str(options.prefect_port)]
    if service == MLFLOW:
        return [*_module("flows.standing.mlflow_process"), str(home.path), HOST, str(options.mlflow_port)]
    if service == PREPARE:
        return [*_module("flows.standing.prepare"), *options.pools]
    if service == GUARD:
        return [*_module("flows.standing.guard"), installation]
    pool = service.removeprefix("worker-")
    return [*_module("flows.cli"), "--home", str(home.path), "worker", pool]


def _module(name: str) -> list[str]:
    # -P: a folder called flows where the command is given must not be taken for ours.
    return [sys.executable, "-P", "-m", name]


def mlflow_arguments(home: Home, host: str, port: int) -> list[str]:
    """Options of ``mlflow server``: the home's database, artifacts by path, as without a server.

    Runs that a command without a server began are carried on through it, and the other way round.
    """
    arguments = ["--host", host, "--port", str(port), "--workers", "1", "--no-serve-artifacts"]
    arguments += ["--default-artifact-root", home.folder("mlflow/artifacts").as_uri()]
    if not os.environ.get("MLFLOW_BACKEND_STORE_URI"):
        arguments += ["--backend-store-uri", f"sqlite:///{(home / DATABASE).as_posix()}"]
    return arguments
