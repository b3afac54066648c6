"""Memory is measured in a process of its own: nothing that this one holds counts, and nothing stays."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import psutil

from storage.errors import ResourceError

P = ParamSpec("P")
T = TypeVar("T")
_STATUS = Path("/proc/self/status")
_FORGET_PEAK = Path("/proc/self/clear_refs")


def in_child(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The function's answer from a fresh process; arguments and answer are plain values.

    Raises ``ResourceError`` when the process ended without one, as it does when the machine is out of memory.
    """
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            return pool.submit(function, *args, **kwargs).result()
    except BrokenProcessPool as error:
        raise ResourceError(
            f"the process that measured {function.__name__} was ended before it answered.",
            hint="It may have run out of memory: close other programs, or take --size small.",
        ) from error


@dataclass(slots=True)
class Peak:
    """Bytes resident beyond those before the block, at most; known when the block has ended."""

    bytes: int = 0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measures the largest resident memory of this process while the block runs, beyond what it held before."""
    found = Peak()
    if _FORGET_PEAK.exists():
        _FORGET_PEAK.write_text("5", encoding="ascii")  # the kernel's word for: start the high-water mark anew
    before = int(psutil.Process().memory_info().rss)
    try:
        yield found
    finally:
        found.bytes = max(0, _highest() - before)


def _highest() -> int:
    if _STATUS.exists():
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
