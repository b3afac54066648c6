"""What all tests share: a quiet environment of their own, a Prefect server for the session, a home folder per test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.home import Home

# Prefect, MLflow, Triton and the hub client read these when they are imported, so they are set before any of them is.
_SESSION = tempfile.TemporaryDirectory(prefix="policylong-tests-")
os.environ.update(
    {
        "PREFECT_HOME": f"{_SESSION.name}/prefect",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRITON_INTERPRET": "1",
        "NO_COLOR": "1",
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": f"{_SESSION.name}/matplotlib",
    }
)
for _name in ("POLICYLONG_HOME", "PREFECT_API_URL", "MLFLOW_TRACKING_URI", "QDRANT_API_KEY", "FORCE_COLOR", "COLUMNS"):
    os.environ.pop(_name, None)


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """One Prefect server with a database of its own for all tests that run flows."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def home_path(tmp_path: Path) -> Path:
    """The path of an empty home; nothing is made there yet."""
    return tmp_path / "home"


@pytest.fixture
def home(home_path: Path) -> Home:
    """An open empty home."""
    return Home.open(home_path)
