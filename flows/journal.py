"""The home's journal of work done, read for people: what was computed, what is under way."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from storage.home import Home

_TAIL = 1 << 20
"""Bytes of the journal's end that are read to see what is under way."""


@dataclass(frozen=True, slots=True)
class Running:
    """A step that a living process began and has not finished."""

    step: str
    pid: int
    since: float
    """Unix time, seconds."""


def journal_size(home: Home) -> int:
    """Bytes of the journal, as a mark for ``steps_done``."""
    path = home / "journal.jsonl"
    return path.stat().st_size if path.exists() else 0


def steps_done(home: Home, *, since: int) -> int:
    """Steps that this process finished after the mark; 0 when everything had been finished before."""
    return sum(line.get("event") == "finished" and line.get("pid") == os.getpid() for line in _lines(home, since))


def running_steps(home: Home) -> list[Running]:
    """Steps begun and not finished by processes that live, oldest first."""
    begun: dict[tuple[int, str], Running] = {}
    for line in _lines(home, max(0, journal_size(home) - _TAIL)):
        pid, key, event = int(line.get("pid", 0)), str(line.get("key", "")), line.get("event")
        if event == "started":
            begun[pid, key] = Running(str(line.get("step", "")), pid, float(line.get("time", 0)))
        elif event == "finished":
            begun.pop((pid, key), None)
    return sorted((r for r in begun.values() if _lived_then(r.pid, r.since)), key=lambda running: running.since)


def _lived_then(pid: int, since: float) -> bool:
    try:
        return psutil.Process(pid).create_time() <= since + 1
    except psutil.Error:
        return False


def _lines(home: Home, start: int) -> Iterator[dict[str, Any]]:
    path = home / "journal.jsonl"
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start)
        for raw in file:
            try:
                line = json.loads(raw)
            except ValueError:  # cut by a kill, or the mark lies inside a line
                continue
            if isinstance(line, dict):
                yield line
