"""The environment that Prefect, MLflow and the model hub read when they are imported; set before any of them is.

Everything is quiet and stays on this machine: no telemetry, no analytics, databases inside the home folder. A
variable that is set already keeps its value, so an installation with a Prefect server or a Postgres database is
configured the usual way. User and password in an address are taken out of it: addresses are shown and written down.
"""

from __future__ import annotations

import os
from pathlib import Path

from storage.addresses import split_credentials

VARIABLES: dict[str, str] = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # SQLite and many tasks: a statement may wait for another's transaction.
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # An error of ours is one line at the end; the traceback of the task it came from is in Prefect's page.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    # Waiting threads of torch give their core away: beside other processes spinning ones halve the speed.
    "OMP_WAIT_POLICY": "PASSIVE",
    "MPLBACKEND": "agg",
}


def prepare(home: Path, *, verbose: bool = False) -> None:
    """Sets what is not set yet; ``verbose`` lets Prefect's own log through.

    Has no effect on a library that was imported before.
    """
    if verbose:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "INFO")
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    take_credentials_apart()
    os.environ.setdefault("PREFECT_HOME", str(home.expanduser().absolute() / "prefect"))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "WARNING")


def take_credentials_apart() -> None:
    """Moves user and password out of the addresses of Prefect and MLflow, into the variables that their clients read.

    A variable that is set already wins. Addresses of databases keep theirs: only the database's driver reads them.
    """
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        address, found = split_credentials(os.environ.get(name, ""))
        if found is None or not address.startswith(("http://", "https://")):
            continue
        os.environ[name] = address
        user, word = found
        if name == "PREFECT_API_URL":
            os.environ.setdefault("PREFECT_API_AUTH_STRING", f"{user}:{word}")
        else:
            os.environ.setdefault("MLFLOW_TRACKING_USERNAME", user)
            os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", word)
