"""The process of the MLflow server: makes the home's database when there is none, then becomes ``mlflow server``.

python -m flows.standing.mlflow_process HOME HOST PORT
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flows.standing.services import mlflow_arguments
from storage.home import Home
from storage.tracking import Tracking


def main(home_path: str, host: str, port: str) -> None:
    """Does not return."""
    home = Home.open(Path(home_path))
    os.environ.pop("PREFECT_API_URL", None)
    # Jobs are MLflow's own evaluations: four more processes that nobody here uses.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    if not os.environ.get("MLFLOW_BACKEND_STORE_URI"):
        tracking = Tracking(home)
        tracking.current("none")
        tracking.follow()
    arguments = mlflow_arguments(home, host, int(port))
    os.execv(sys.executable, [sys.executable, "-P", "-m", "mlflow", "server", *arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
