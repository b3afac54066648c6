"""Names that a record, a manifest or somebody's folder gives to files: they stay below their folder."""

from __future__ import annotations

from pathlib import PurePosixPath


def inside(name: str) -> str:
    """The name, a POSIX path that stays below its folder; raises ``ValueError`` for any other.

    Looks at the name alone: what a symbolic link points at is the reader's to check.
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} leads out of its folder")
    return name
