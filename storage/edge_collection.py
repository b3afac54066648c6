"""One folder of the embedded engine (``qdrant-edge-py``): opened under its lock, filled, closed.

The folder is written once, without a write-ahead log, and believed only with the marker that is written after the
count was checked; a load that was killed starts over.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import qdrant_edge as edge

from storage.errors import IntegrityError, ResourceError
from storage.files import disk_errors, read_json, write_json
from storage.home import Home

MARKER = "complete.json"
REMAKE = "Delete that folder and run the same command again: the index is made anew from the corpus."
ROOM = "Free space (policylong doctor shows how much there is) and run the same command again."
LEAST_BYTES = 96 << 20
"""Free bytes without which nothing is opened or loaded. The engine makes two files of 32 MiB with holes and writes
them through memory: where the disk has no room for a page then, the system ends the process (SIGBUS) and no error can
be made of it. [ours, measured with qdrant-edge-py 0.9]
"""


class EdgeCollection:
    """A folder of the engine, made with ``config`` when it is empty; holds its lock until it is closed."""

    def __init__(self, folder: Path, config: edge.EdgeConfig) -> None:
        self._held = ExitStack()
        self._folder = folder
        self.check_room()
        path = str(folder)
        with _engine_errors(folder):
            self._shard = edge.EdgeShard.load(path) if any(folder.iterdir()) else edge.EdgeShard.create(path, config)
        self._open = True

    def check_room(self) -> None:
        """Raises ``ResourceError`` where the disk has too little room; to be called before points are loaded."""
        free = shutil.disk_usage(self._folder).free
        if free < LEAST_BYTES:
            raise ResourceError(
                f"the disk is full: {free >> 20} MiB are free for {self._folder}, {LEAST_BYTES >> 20} are needed.",
                hint=ROOM,
            )

    def finish(self) -> None:
        """Makes what was loaded durable."""
        self.check_room()
        self._shard.flush()

    def count(self) -> int:
        """Points in the folder."""
        return int(self._shard.count(edge.CountRequest(exact=True)))

    def close(self) -> None:
        """Gives the folder and its lock back; may be called twice."""
        if self._open:
            self._open = False
            self._shard.close()
            self._held.close()

    def hold(self, held: ExitStack) -> None:
        """Takes over what is to be let go when this is closed."""
        self._held = held


Collection = TypeVar("Collection", bound=EdgeCollection)


def is_complete(home: Home, name: str, rows: int) -> bool:
    """Whether the folder's marker says that it was filled with ``rows`` points."""
    marker = home / f"index/{name}/{MARKER}"
    return marker.is_file() and read_json(marker) == {"vectors": rows}


def open_edge(
    home: Home,
    name: str,
    rows: int,
    make: Callable[[Path], Collection],
    fill: Callable[[Collection], None],
    *,
    wait_seconds: float,
) -> Collection:
    """Takes the lock and opens the folder; filled anew unless it says, and has, ``rows`` points."""
    with ExitStack() as stack:
        stack.enter_context(home.lock(f"index-{name}", wait_seconds=wait_seconds))
        folder = home.folder(f"index/{name}")
        if is_complete(home, name, rows):
            opened = make(folder / "shard")
            if opened.count() == rows:
                opened.hold(stack.pop_all())
                return opened
            opened.close()
        shutil.rmtree(folder)
        (folder / "shard").mkdir(parents=True)
        made = make(folder / "shard")
        stack.callback(made.close)
        with _engine_errors(folder):
            fill(made)
            made.finish()
        write_json(folder / MARKER, {"vectors": rows})
        made.hold(stack.pop_all())
        return made


class _engine_errors:
    """Makes one clear error of the engine's own, which have no type but plain ``Exception``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._disk = disk_errors(folder)

    def __enter__(self) -> None:
        self._disk.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not Exception:
            self._disk.__exit__(kind, error, trace)
            return
        if "No space left" in str(error):
            raise ResourceError(f"the disk is full: {self._folder} could not be written.", hint=ROOM) from error
        raise IntegrityError(f"the vector index in {self._folder} can't be used ({error}).", hint=REMAKE) from error
