"""What tests of an installation share: processes that carry its mark, and its record.

The fixture ``sleepers`` is imported by the tests that use it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from flows.standing.processes import MARK, SERVICE
from flows.standing.record import Installation
from flows.standing.services import SERVER
from flows.standing.versions import own_version

SLEEPER = [sys.executable, "-c", "import sys; sys.stdin.read()"]


@pytest.fixture
def sleepers() -> Iterator[Any]:
    """Starts processes with an installation's mark; whatever is left ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(mark: str, service: str = SERVER, **variables: str) -> subprocess.Popen[bytes]:
        marked = {**os.environ, MARK: mark, SERVICE: service, **variables}
        started.append(subprocess.Popen(SLEEPER, stdin=subprocess.PIPE, env=marked))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def installation(process: psutil.Process | None = None, **changes: Any) -> Installation:
    mine = process or psutil.Process()
    values: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "version": own_version(),
        "state": "up",
        "pid": mine.pid,
        "started": mine.create_time(),
        "prefect": f"http://127.0.0.1:{free_port()}",
        "mlflow": "http://127.0.0.1:1",
        "pools": ("policylong-cpu",),
    }
    return Installation(**{**values, **changes})
