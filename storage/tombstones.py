"""Tombstones: what ``policylong gc`` removed, so that what is missing can be told from what was lost.

    tombstones/<hash of uri>-<hash of files>.json

One per thing (a policy's weights, a version, the tables of a step …), written and synced before anything of it is
removed: a removal that was killed half way is explained, and the next gc finishes it. A tombstone explains files that
are missing; where one is there again (made anew), it says nothing about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storage.digests import digest_json, digest_text, short
from storage.errors import IntegrityError
from storage.files import read_json, write_json
from storage.findings import Finding, not_checkable
from storage.home import Home

FOLDER = "tombstones"


class Removed(BaseModel):
    """One file that was removed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str | None = Field(description="Digest as the home had recorded it; null where nothing recorded one.")
    bytes: int = Field(description="Size.", ge=0)


class Tombstone(BaseModel):
    """What was removed, why and when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str = Field(description="The thing, as a POSIX path relative to the home.")
    kind: str = Field(description="What it was: policy weights, version, tables, …")
    files: dict[str, Removed] = Field(description="Every file, by POSIX path relative to the home.")
    reason: str
    time: str = Field(description="When gc began to remove it, UTC, ISO 8601.")

    @property
    def line(self) -> str:
        """For a finding of the audit."""
        return f"removed by gc on {self.time[:10]}: {self.reason}"


def write_tombstone(home: Home, tombstone: Tombstone) -> Path:
    """Writes a tombstone durably; the same thing with the same files keeps its first one."""
    path = home / FOLDER / f"{_key(tombstone.uri)}-{short(digest_json(sorted(tombstone.files)), 16)}.json"
    if not path.exists():
        write_json(path, tombstone.model_dump(mode="json"))
    return path


def tombstone_of(home: Home, uri: str) -> Tombstone | None:
    """The newest tombstone of a file or folder (path relative to the home) that is not there, or ``None``.

    ``None`` as well when it is there: a tombstone explains nothing about what exists. Raises ``IntegrityError`` naming
    a tombstone that can't be read.
    """
    if (home / uri).exists() and not _emptied(home, uri):
        return None
    found = [stone for stone in _about(home, uri) if stone.uri == uri or uri in stone.files]
    return max(found, key=lambda stone: stone.time, default=None)


def explained(home: Home, finding: Finding) -> Finding:
    """A finding of an audit about a file that gc removed: not checkable, with the reason; any other as it is."""
    if finding.status == "passed" or finding.file is None:
        return finding
    try:
        stone = tombstone_of(home, finding.file)
    except IntegrityError:
        return finding  # a damaged tombstone explains nothing
    return finding if stone is None else not_checkable(finding.check, stone.line, finding.file)


def list_tombstones(home: Home) -> list[Tombstone]:
    """All tombstones, oldest first."""
    return sorted(map(_read, (home / FOLDER).glob("*.json")), key=lambda stone: (stone.time, stone.uri))


def _emptied(home: Home, uri: str) -> bool:
    """Whether a folder lacks a file that gc removed from it."""
    folder = home / uri
    return folder.is_dir() and any(
        not (home / name).exists() for stone in _about(home, uri) if stone.uri == uri for name in stone.files
    )


def _about(home: Home, uri: str) -> Iterator[Tombstone]:
    """Tombstones of a path and of the folders above it."""
    path = PurePosixPath(uri)
    for name in (path, *path.parents[:-1]):
        for file in (home / FOLDER).glob(f"{_key(name.as_posix())}-*.json"):
            yield _read(file)


def _key(uri: str) -> str:
    return short(digest_text(uri), 16)


def _read(path: Path) -> Tombstone:
    try:
        return Tombstone.model_validate(read_json(path))
    except ValidationError as error:
        raise IntegrityError(f"{path} is not a tombstone: {error.errors()[0]['msg']}.") from error
