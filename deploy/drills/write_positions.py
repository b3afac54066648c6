"""Kills a process at the n-th change that it is about to make to a folder, so that every position can be tried.

    positions = Positions(folder, at=17)      # in a process of its own: an audit hook can't be taken out again
    positions.watch()

Changes are seen by Python's audit hook (files opened for writing, renamed, linked, removed; folders made), as the first
half of what ``Path.write_bytes`` writes, and as commits of SQLAlchemy. The process is killed before the change is made.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename": 1, "os.link": 1, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0}
"""Audit event → which of its arguments is the path that changes."""
COMMIT = "commit"


class Positions:
    """The changes of this process below a folder, in their order; it is killed at number ``at`` (from 0)."""

    def __init__(self, folder: Path, *, at: int | None = None, ignored: tuple[str, ...] = ()) -> None:
        self.folder, self.at, self.ignored = folder, at, ignored
        self.seen: list[str] = []
        """``event path`` of each, the path below the folder."""

    def watch(self) -> None:
        """Begins, for as long as the process lives."""
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        event.listen(Engine, "commit", lambda connection: self._reached(f"{COMMIT} database"))
        write = Path.write_bytes

        def halved(path: Path, data: bytes) -> int:
            if (name := self._below(path)) is not None:
                self._reached(f"half {name}", lambda: write(path, data[: len(data) // 2]))
            return write(path, data)

        Path.write_bytes = halved  # type: ignore[method-assign,assignment]
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            if int(arguments[2] or 0) & WRITING and (name := self._below(arguments[0])) is not None:
                self._reached(f"open {name}")
        elif event in CHANGES and (name := self._below(arguments[CHANGES[event]])) is not None:
            self._reached(f"{event.removeprefix('os.')} {name}")

    def _below(self, path: Any) -> str | None:
        if not isinstance(path, str | Path) or not Path(path).is_relative_to(self.folder):
            return None
        name = Path(path).relative_to(self.folder).as_posix()
        return None if name.startswith(self.ignored) else name

    def _reached(self, what: str, before: Callable[[], object] | None = None) -> None:
        self.seen.append(what)
        if len(self.seen) - 1 == self.at:
            if before is not None:
                before()
            os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Callable[[], Any]) -> tuple[int, Any]:
    """Does work in a fork of this process: its exit code (negative: the signal), and what it returned, as JSON.

    The process that forks must have no threads of its own at work.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read)
            with os.fdopen(write, "w") as answer:
                json.dump(work(), answer)
            code = 0
        finally:
            if sys.exc_info()[0] is not None:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code, json.loads(said) if code == 0 else None
