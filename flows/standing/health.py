"""The question of a health check: does what this machine needs, or serves, answer now?

    python -P -m flows.standing.health                          Prefect and MLflow of the environment
    python -P -m flows.standing.health http://127.0.0.1:5000/health
    python -P -m flows.standing.health --pool policylong-cpu    a worker of this machine serves the work pool

Leaves with 0, or with the exit code of the error, which is one line on stderr.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

from flows.failures import report
from flows.standing.api import PrefectApi, check_mlflow, healthy
from storage.errors import ConfigError, PolicylongError, ServiceError

USAGE = "Use: python -m flows.standing.health [ADDRESS | --pool POOL]"


def check(arguments: Sequence[str]) -> None:
    """Raises ``ServiceError`` when the answer is no, ``ConfigError`` for a question that can't be asked."""
    match list(arguments):
        case []:
            _prefect().check()
            check_mlflow(os.environ.get("MLFLOW_TRACKING_URI", ""))
        case ["--pool", pool]:
            _check_worker(pool)
        case [address] if address.startswith(("http://", "https://")):
            if not healthy(address):
                raise ServiceError(f"{address} does not answer.")
        case _:
            raise ConfigError(f"{' '.join(arguments)!r} is no question.", hint=USAGE)


def _prefect() -> PrefectApi:
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        raise ConfigError("PREFECT_API_URL is not set.", hint=USAGE)
    return PrefectApi(address, timeout_seconds=10)


def _check_worker(pool: str) -> None:
    # Its name is given in flows.standing.worker.
    mine = f"{pool}-{socket.gethostname()}-"
    workers = _prefect().post(f"/work_pools/{pool}/workers/filter", {})
    if not any(worker["status"] == "ONLINE" and worker["name"].startswith(mine) for worker in workers):
        raise ServiceError(f"no worker of {socket.gethostname()} serves work pool {pool!r}.")


if __name__ == "__main__":
    try:
        check(sys.argv[1:])
    except PolicylongError as error:
        sys.exit(report(error))
