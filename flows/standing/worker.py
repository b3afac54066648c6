"""A worker of a work pool: the process that runs what is deployed to it, here or on another machine."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from flows.standing.api import PrefectApi, check_mlflow
from flows.standing.record import standing
from flows.standing.versions import check_versions
from storage.errors import ConfigError
from storage.home import Home


def prefect_address(home: Home) -> str:
    """Address of the Prefect API: ``PREFECT_API_URL``, or of the installation that is up in the home.

    Raises ``ConfigError`` when there is neither.
    """
    installation = standing(home)
    address = os.environ.get("PREFECT_API_URL") or (installation.api if installation else None)
    if address is None:
        raise ConfigError(
            "there is no Prefect server to use: PREFECT_API_URL is not set and nothing is up in this home.",
            hint="policylong up, or set PREFECT_API_URL.",
        )
    return address


def check_worker(address: str, pool: str) -> None:
    """Raises what stands against a worker for a work pool: no server, credentials, another version, no MLflow."""
    api = PrefectApi(address)
    api.check()
    deployed = api.post("/deployments/filter", {"work_pools": {"name": {"any_": [pool]}}})
    check_versions(pool, (deployment["version"] for deployment in deployed))
    check_mlflow(os.environ.get("MLFLOW_TRACKING_URI", ""))


def surroundings(home: Home, address: str) -> dict[str, str]:
    """Environment variables that a worker sets for itself and for the processes of its runs."""
    # Prefect runs hooks of a killed run by a script beside a module of its own that is called storage, as a package of
    # ours is: the folder of a script is no place to import from.
    variables = {"PREFECT_API_URL": address, "POLICYLONG_HOME": str(home.path), "PYTHONSAFEPATH": "1"}
    variables["PREFECT_LOGGING_LEVEL"] = os.environ.get("PREFECT_LOGGING_LEVEL", "INFO")
    if (installation := standing(home)) is not None:
        variables["MLFLOW_TRACKING_URI"] = os.environ.get("MLFLOW_TRACKING_URI", installation.mlflow)
    return variables


def serve(home: Home, pool: str) -> None:
    """Runs what is deployed to a work pool in this home, until it is stopped.

    How much runs at a time is the deployments' to say and the pool's. Raises what ``prefect_address`` and
    ``check_worker`` raise.
    """
    address = prefect_address(home)
    check_worker(address, pool)
    os.environ.update(surroundings(home, address))
    # Prefect makes a folder a run below the working directory's own rules; relative paths in presets mean the home's.
    os.chdir(Path(home.path))
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.workers.process import ProcessWorker

    # No limit of the worker's own: with one, Prefect 3.8's worker ends when a run that was suspended is resumed before
    # its process has gone ("this borrower is already holding one of this CapacityLimiter's tokens").
    name = f"{pool}-{socket.gethostname()}-{os.getpid()}"
    worker = ProcessWorker(name=name, work_pool_name=pool, create_pool_if_not_found=False)
    with temporary_settings({PREFECT_API_URL: address}):
        asyncio.run(worker.start())
