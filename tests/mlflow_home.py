"""An MLflow store whose migrations have run: made once per test session, copied into each home that needs one."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

from storage.home import Home
from storage.tracking import Tracking

_FOLDER = tempfile.TemporaryDirectory(prefix="policylong-mlflow-")


def tracked(home: Home) -> Tracking:
    """The tracking of a home that has none yet, without the seconds that a first use takes."""
    shutil.copytree(_migrated(), home / "mlflow")
    return Tracking(home)


@cache
def _migrated() -> Path:
    home = Home.open(Path(_FOLDER.name) / "home")
    Tracking(home).find_version("0" * 64)
    return home / "mlflow"
