"""Processes of an installation: known by a mark in their environment, which everything that they start inherits.

A process is ended only while it carries the mark, so a stranger that has a number of ours is never touched. The mark
finds what a record of process numbers can't: the processes of a worker that was killed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, Field

MARK = "POLICYLONG_INSTALLATION"
"""Environment variable: the id of the installation that a process belongs to."""
SERVICE = "POLICYLONG_SERVICE"
"""Environment variable: the service that started a process."""
FLOW_RUN = "PREFECT__FLOW_RUN_ID"
"""Environment variable that Prefect sets in the process of a flow run."""
_CLOCK_SECONDS = 1.0
"""Start times of one process differ by less than this between two readings."""


class Identity(BaseModel):
    """A process, known again when the clock was set meanwhile, and on a home that another machine mounts, too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    place: str = Field(description="Boot of the kernel and its space of process numbers; empty where nothing tells.")
    started: float = Field(description="Ticks since the boot; Unix time in seconds where ``place`` is empty.")

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process that has this number here now; ``None`` when none lives."""
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return None
            if place := _place():
                # After the name, which may hold anything, in brackets: fields 3 and on of proc(5); 22 is the start.
                fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
                return cls(pid=pid, place=place, started=float(fields[19]))
            return cls(pid=pid, place="", started=psutil.Process(pid).create_time())
        except (psutil.Error, OSError, IndexError):
            return None

    @property
    def lives(self) -> bool:
        """Whether it lives here."""
        found = Identity.of(self.pid)
        return found is not None and found.place == self.place and abs(found.started - self.started) < _CLOCK_SECONDS

    @property
    def is_gone(self) -> bool:
        """Whether it has certainly ended: it was one of this boot of this machine, and does not live."""
        return bool(self.place) and self.place == _place() and not self.lives


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def same_process(pid: int, started: float) -> bool:
    """Whether the process that had this number and start time (Unix time, seconds) still lives."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < _CLOCK_SECONDS and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def carries(pid: int, installation: str) -> bool:
    """Whether the process of this number lives and carries the installation's mark: a clock that is set changes
    nothing of it, as it changes every process's start time.
    """
    try:
        return _environment(psutil.Process(pid)).get(MARK) == installation
    except psutil.Error:
        return False


def members(installation: str, *, services: Collection[str] | None = None) -> list[psutil.Process]:
    """Living processes of this user that carry the installation's mark, this process left out.

    ``services`` keeps those that were started by one of these.
    """
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        variables = _environment(process)
        if variables.get(MARK) == installation and (services is None or variables.get(SERVICE) in services):
            found.append(process)
    return found


def flow_runs(processes: Iterable[psutil.Process]) -> set[str]:
    """Ids of the flow runs that these processes run."""
    return {run for process in processes if (run := _environment(process).get(FLOW_RUN))}


def end(processes: Collection[psutil.Process], *, grace_seconds: float) -> int:
    """Asks processes to end, kills those that have not after the grace; returns how many there were."""
    for process in processes:
        _signalled(process, kill=False)
    _, left = psutil.wait_procs(processes, timeout=grace_seconds)
    for process in left:
        _signalled(process, kill=True)
    psutil.wait_procs(left, timeout=grace_seconds)
    return len(processes)


def _signalled(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.Error:  # it ended, or its number is another's by now: psutil compares start times
        return


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return {}
        return process.environ()
    except (psutil.Error, OSError):  # another user's, or ended meanwhile
        return {}
