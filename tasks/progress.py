"""Progress on everything that takes longer than a few seconds: count, rate and time left.

    with progress("embedding chunks", total=len(chunks), unit="chunks") as advance:
        for batch in batches:
            ...
            advance(len(batch))

    for root in track(roots, total=len(roots), description="screening", unit="roots"):
        ...

On a terminal there is a bar per piece of work under way; bars of concurrent tasks share one display. A bar goes away
when its work ends, and what took longer than five seconds leaves one line. Elsewhere (a log, a child process) nothing
is printed but a line about every ten seconds. All of it goes to stderr: stdout is for results.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from storage.errors import StoppedError

LINE_SECONDS = 10.0
"""Seconds between two lines where there is no terminal."""
KEPT_SECONDS = 5.0
"""Work on a terminal that took longer than this leaves a line."""

_stopping = threading.Event()
Item = TypeVar("Item")
Advance = Callable[[float], None]


class Progress(Protocol):
    """Shows one piece of work."""

    def advance(self, amount: float) -> None:
        """Counts ``amount`` more units as done."""
        ...

    def close(self) -> None:
        """Ends the display of this piece of work."""
        ...


@contextmanager
def progress(description: str, *, total: float | None, unit: str) -> Iterator[Advance]:
    """Shows one piece of work while the block runs; call what it gives with the number of units done since the last
    call.

    ``total`` is ``None`` when it is not known beforehand. May be used from several threads at once. Counting raises
    ``StoppedError`` once ``request_stop`` was called, so that a stop takes a batch's time and not a shard's.
    """
    shown: Progress = _Bar(description, total, unit) if _on_terminal() else _Lines(description, total, unit)

    def advance(amount: float = 1) -> None:
        if _stopping.is_set():
            raise StoppedError("stopped;", hint="run the same command to carry on")
        shown.advance(amount)

    try:
        yield advance
    finally:
        shown.close()


def request_stop() -> None:
    """Lets every piece of work under way, in whatever thread, end with ``StoppedError`` where it counts next."""
    _stopping.set()


def forget_stop() -> None:
    """Lets work go on again after ``request_stop``: the command that was stopped has ended."""
    _stopping.clear()


def track(iterable: Iterable[Item], total: float | None, description: str, unit: str) -> Iterator[Item]:
    """Yields the items of ``iterable`` and counts each as one unit once the next is asked for."""
    with progress(description, total=total, unit=unit) as advance:
        for item in iterable:
            yield item
            advance(1)


def rate_text(count: float, seconds: float, unit: str) -> str:
    """A rate for people, "81 chunks/s" or "0.42 shards/s"."""
    rate = count / seconds if seconds > 0 else 0.0
    return f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.2f} {unit}/s"


class _Lines:
    """A line about every ten seconds, none for work that is shorter."""

    def __init__(self, description: str, total: float | None, unit: str) -> None:
        self._description, self._total, self._unit = description, total, unit
        self._lock = threading.Lock()
        self._done = 0.0
        self._shown: float | None = None
        self._start = self._last = time.monotonic()

    def advance(self, amount: float = 1) -> None:
        with self._lock:
            self._done += amount
            now = time.monotonic()
            if now - self._last >= LINE_SECONDS:
                self._last = now
                self._print(now)

    def close(self) -> None:
        with self._lock:
            if self._shown is not None and self._shown != self._done:
                self._print(time.monotonic())

    def _print(self, now: float) -> None:
        seconds = now - self._start
        self._shown = self._done
        of = f" of {self._total:,.0f}" if self._total is not None else ""
        rate = rate_text(self._done, seconds, self._unit)
        line = f"{self._description}: {self._done:,.0f}{of} {self._unit}, {rate}, {seconds:.0f} s"
        _console().print(line, highlight=False, soft_wrap=True, markup=False)


class _Bar:
    """A bar in the one display that all threads of this process share."""

    _lock = threading.RLock()
    _bars: Bars | None = None
    _open = 0

    def __init__(self, description: str, total: float | None, unit: str) -> None:
        self._description, self._unit = description, unit
        self._done = 0.0
        self._start = time.monotonic()
        with _Bar._lock:
            if _Bar._bars is None:
                _Bar._bars = Bars(
                    TextColumn("{task.description}", markup=False),
                    BarColumn(bar_width=None),
                    TaskProgressColumn(show_speed=False),
                    MofNCompleteColumn(),
                    TextColumn("{task.fields[rate]}", markup=False),
                    TimeRemainingColumn(),
                    console=_console(),
                    transient=True,
                    redirect_stdout=False,
                )
                _Bar._bars.start()
            self._shown: Bars = _Bar._bars
            self._task: TaskID = self._shown.add_task(description, total=total, rate=unit)
            _Bar._open += 1

    def advance(self, amount: float = 1) -> None:
        with _Bar._lock:
            self._done += amount
            rate = rate_text(self._done, time.monotonic() - self._start, self._unit)
            self._shown.update(self._task, advance=amount, rate=rate)

    def close(self) -> None:
        seconds = time.monotonic() - self._start
        with _Bar._lock:
            self._shown.remove_task(self._task)
            _Bar._open -= 1
            if _Bar._open == 0:
                self._shown.stop()
                _Bar._bars = None
        if seconds >= KEPT_SECONDS:
            rate = rate_text(self._done, seconds, self._unit)
            line = f"{self._description}: {self._done:,.0f} {self._unit} in {seconds:.0f} s, {rate}"
            _console().print(line, style="dim", highlight=False, markup=False)


def _console() -> Console:
    return Console(stderr=True)


def _on_terminal() -> bool:
    return _console().is_terminal and multiprocessing.parent_process() is None
