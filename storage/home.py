"""The home folder: everything that runs make lies in it, each kind of thing in its own place.

corpora/<digest16>/      documents, chunks, tokens, vectors, quarantine, corpus.json     names/<name>.json points at one
index/<collection>/      the embedded vector index (can be made again from the vectors)
policies/<digest16>/     weights, config, tokenizer; policy.json names parent and version trained on
work/<step>/<key>.parquet     tables of unfinished and finished steps, named by cache key
checkpoints/<step>/<key>.json  which steps are done, with the ref of what they made
versions/<version16>/    dataset versions: tables, samples, card, manifest.json (written last)
campaigns/<name>.json    rounds of a campaign: version, policies, scores
reports/<version16>/     plots and reports (not part of a version)
exports/<digest>.json    where versions were exported or pushed to
tombstones/              what was removed, and why
standing/  bench/        a standing installation's processes and logs; the home that benchmarks work in
mlflow/  prefect/        the embedded databases
locks/                   one lock file per round, index, …
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from storage.errors import BusyError, ConfigError, ResourceError

FORMAT = 1


class Home:
    """Paths of one home folder; makes it on first use."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()

    @classmethod
    def open(cls, path: Path) -> Home:
        """Opens a home folder, making it when it is not there; refuses one of another format or a file."""
        home = cls(path)
        if home.path.exists() and not home.path.is_dir():
            raise ConfigError(f"the home {home.path} is a file, expected a folder.", hint="Give another --home.")
        marker = home.path / "home.json"
        if marker.exists():
            found = json.loads(marker.read_text()).get("format")
            if found != FORMAT:
                raise ConfigError(f"the home {home.path} has format {found}, this version reads {FORMAT}.")
        else:
            try:
                home.path.mkdir(parents=True, exist_ok=True)
                temporary = marker.with_suffix(f".{os.getpid()}.tmp")
                temporary.write_text(json.dumps({"format": FORMAT}) + "\n")
                os.replace(temporary, marker)
            except OSError as error:
                raise ResourceError(
                    f"the home {home.path} can't be written ({error.strerror}).", hint="Give another --home."
                ) from error
        return home

    def __truediv__(self, uri: str) -> Path:
        return self.path / uri

    def folder(self, uri: str) -> Path:
        """A folder below the home, made when missing."""
        path = self.path / uri
        path.mkdir(parents=True, exist_ok=True)
        return path

    def within(self, uri: str) -> Path:
        """A path below the home given by a table or manifest; refuses one that would leave it."""
        path = (self.path / uri).resolve()
        if not path.is_relative_to(self.path.resolve()):
            raise ConfigError(f"{uri!r} leads out of the home folder.")
        return path

    @contextmanager
    def lock(self, name: str, *, wait_seconds: float = 0.0) -> Iterator[None]:
        """Holds a named lock of this home; raises ``BusyError`` when another process holds it past the wait.

        The lock is the operating system's on an open file, so a killed process never leaves it behind.
        """
        path = self.folder("locks") / f"{name}.lock"
        lock = FileLock(path)
        try:
            lock.acquire(timeout=wait_seconds, poll_interval=0.2)
        except Timeout as error:
            raise BusyError(
                f"another process works on {name} in {self.path}.", hint="Wait for it, or look at policylong status."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def journal(self, line: dict[str, object]) -> None:
        """Appends one line of JSON to the home's journal of work done, with the time; for people and drills only."""
        record = json.dumps({"time": round(time.time(), 3), "pid": os.getpid(), **line}, ensure_ascii=False)
        with (self.path / "journal.jsonl").open("a", encoding="utf-8") as file:
            file.write(record + "\n")
