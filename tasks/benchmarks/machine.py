"""The machine that a benchmark ran on, as far as it can be asked."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch

from tasks.benchmarks.measurement import Machine

LIBRARIES = ("torch", "transformers", "pyarrow", "polars", "datasets", "qdrant-edge-py", "sentence-transformers")
OPTIONAL = ("faiss-cpu",)


def this_machine(threads: int, load_before: float) -> Machine:
    """Processor, cores, memory, library versions and date; ``threads`` are those that torch was given."""
    return Machine(
        processor=_processor(),
        cores=psutil.cpu_count(logical=True) or 1,
        threads=threads,
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        versions=_versions(),
        date=datetime.now(UTC).date().isoformat(),
        load_before=round(load_before, 2),
        load_after=round(load_now(), 2),
    )


def load_now() -> float:
    """Processes that wanted a core, mean over the last minute."""
    return os.getloadavg()[0]


def _versions() -> dict[str, str]:
    found = {}
    for name in (*LIBRARIES, *OPTIONAL):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
