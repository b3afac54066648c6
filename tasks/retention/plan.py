"""What gc would remove: each thing with its files, the reason, and the bytes that it gives back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from storage.errors import ConfigError
from storage.home import Home
from storage.tombstones import Removed


class Keep(BaseModel):
    """What is to be kept; by default every version and whatever a campaign may still need."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    campaigns: tuple[str, ...] = Field((), description="Only these campaigns are kept; none given: all.")
    rounds: int | None = Field(None, ge=1, description="Only the last so many rounds of each finished campaign.")
    versions: bool = Field(False, description="Remove the versions that are not kept, not only what they needed.")
    unfinished: bool = Field(False, description="Remove the work of what was begun and not finished as well.")

    @property
    def everything(self) -> bool:
        """Whether every version is kept."""
        return not self.campaigns and self.rounds is None

    def check(self) -> None:
        """Raises ``ConfigError`` where versions are to go and nothing says which stay."""
        if self.versions and self.everything:
            raise ConfigError(
                "--versions removes the versions that are not kept, and all are.",
                hint="Say which to keep: --keep CAMPAIGN or --keep-rounds N.",
            )


class Removal(BaseModel):
    """One thing to be removed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(description="tables, policy weights, version, training checkpoint, half-written file, …")
    uri: str = Field(description="The thing, relative to the home.")
    files: dict[str, Removed] = Field(description="Its files, relative to the home.")
    reason: str
    bytes: int = Field(0, description="Bytes given back; files that a version shares give none.")


class Plan(BaseModel):
    """Everything that would be removed, and what stays though one might expect otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    removals: tuple[Removal, ...]
    stays: tuple[str, ...] = Field((), description="One line each.")
    applied: bool = False

    @property
    def bytes(self) -> int:
        """Bytes given back in all."""
        return sum(removal.bytes for removal in self.removals)

    @property
    def files(self) -> int:
        """Files removed in all."""
        return sum(len(removal.files) for removal in self.removals)


def priced(home: Home, removals: Iterable[Removal]) -> tuple[Removal, ...]:
    """The removals with the bytes each gives back: a file does when all its names on disk are removed."""
    found = [removal for removal in removals if removal.files]
    names: Counter[tuple[int, int]] = Counter()
    for removal in found:
        names.update(_node(home / name) for name in removal.files if (home / name).exists())
    counted: set[tuple[int, int]] = set()
    result = []
    for removal in found:
        freed = 0
        for name in removal.files:
            path = home / name
            if not path.exists() or _node(path) in counted:
                continue
            counted.add(_node(path))
            status = path.stat()
            freed += status.st_size if names[_node(path)] >= status.st_nlink else 0
        result.append(removal.model_copy(update={"bytes": freed}))
    return tuple(result)


def _node(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def nodes_below(folders: Iterable[Path]) -> set[tuple[int, int]]:
    """What identifies the files below some folders, whatever their names."""
    return {_node(path) for folder in folders for path in folder.rglob("*") if path.is_file()}


def sized(path: Path, sha256: str | None = None) -> Removed:
    """A file's entry in a tombstone."""
    return Removed(sha256=sha256, bytes=path.stat().st_size if path.exists() else 0)
