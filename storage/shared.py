"""Shared storage by URL: files under their digests, and records of finished steps, wherever fsspec can write.

    objects/<first two>/<sha256>     the bytes of a table, a corpus file, a file of a policy
    steps/<key>.json                 what a step made on some machine: its refs and its seconds

Nothing in it is believed: every file is hashed when it arrives. It can be deleted whenever nothing runs.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.digests import digest_file
from storage.errors import ConfigError, IntegrityError, PolicylongError, ServiceError
from storage.files import replacing
from storage.home import Home
from storage.refs import Ref

FETCH_SECONDS = 3600.0
"""Longest wait for another process of this machine that brings the same file. Ours."""


class SharedStorage:
    """One folder or bucket. Raises ``ConfigError`` for a URL that fsspec can't use, ``ServiceError`` when it fails."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url.rstrip("/")
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"shared storage {self.url!r} can't be used: {' '.join(str(error).split())}.",
                hint="Give a URL of fsspec to --shared-storage, such as s3://bucket/folder or file:///shared/folder.",
            ) from error

    def put(self, path: Path, sha256: str) -> None:
        """Puts a file under its digest, unless it is there."""
        name = _object(sha256)
        with self._answering():
            if not self._files.exists(f"{self._root}/{name}"):
                with self._moved(name) as temporary:
                    self._files.put_file(str(path), temporary)

    def fetch(self, sha256: str, target: Path) -> None:
        """Brings a file to ``target``; raises ``IntegrityError`` when what arrives has another digest."""
        with self._answering(), replacing(target) as temporary:
            self._files.get_file(f"{self._root}/{_object(sha256)}", str(temporary))
            found = digest_file(temporary)
            if found != sha256:
                self._files.rm_file(f"{self._root}/{_object(sha256)}")
                raise IntegrityError(
                    f"{_object(sha256)} in {self.url} was changed: its sha256 is {found[:12]}.",
                    hint="It was removed there; run the same command again.",
                )

    def fetch_once(self, home: Home, uri: str, sha256: str) -> Path:
        """Brings a file into a home of this machine unless it is there; processes that want the same one wait."""
        target = home.within(uri)
        with home.lock(f"fetch-{sha256[:16]}", wait_seconds=FETCH_SECONDS):
            if not _arrived(target, sha256):
                self.fetch(sha256, target)
        return target

    def record(self, key: str, refs: Mapping[str, Ref], seconds: float) -> None:
        """Notes what a step made; its files have to be there."""
        document = {"refs": {name: ref.model_dump(mode="json") for name, ref in refs.items()}, "seconds": seconds}
        with self._answering(), self._moved(f"steps/{key}.json") as temporary:
            self._files.pipe_file(temporary, json.dumps(document, sort_keys=True).encode())

    def recorded(self, key: str) -> tuple[dict[str, Ref], float] | None:
        """What a step made, and its seconds, where it is noted and every file is there."""
        with self._answering():
            try:
                document: Any = json.loads(self._files.cat_file(f"{self._root}/steps/{key}.json"))
            except FileNotFoundError:
                return None
            refs = {name: Ref.model_validate(ref) for name, ref in document["refs"].items()}
            if all(self._files.exists(f"{self._root}/{_object(ref.sha256)}") for ref in refs.values()):
                return refs, float(document["seconds"])
            return None

    @contextmanager
    def _moved(self, name: str) -> Iterator[str]:
        """Gives a temporary name; the file is moved to its own when it is whole."""
        temporary = f"{self._root}/incoming/{Path(name).name}.{socket.gethostname()}.{os.getpid()}"
        for path in (temporary, f"{self._root}/{name}"):
            self._files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        yield temporary
        self._files.mv(temporary, f"{self._root}/{name}")

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except PolicylongError:
            raise
        except (OSError, ValueError, KeyError) as error:
            raise ServiceError(
                f"shared storage {self.url} failed: {type(error).__name__}: {' '.join(str(error).split())}.",
                hint="Look at its address and credentials, then run the same command again.",
            ) from error


def _object(sha256: str) -> str:
    return f"objects/{sha256[:2]}/{sha256}"


_hashed: set[tuple[str, str, int, int]] = set()
"""Path, digest, size and time of change of files that this process has hashed."""


def _arrived(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    state = path.stat()
    known = (str(path), sha256, state.st_size, state.st_mtime_ns)
    if known not in _hashed:
        if digest_file(path) != sha256:
            return False
        _hashed.add(known)
    return True
