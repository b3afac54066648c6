"""Where versions went: a home notes every folder it exported to and every repository it pushed to.

    exports/<digest>.json       one per version and place

Only for ``policylong takedown``, which can't follow a document otherwise. A note says what was done, not what is there
still; a copy of an export is known to nobody.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storage.digests import digest_json, short
from storage.errors import IntegrityError
from storage.files import read_json, write_json
from storage.home import Home
from tasks.exporting.record import RECORD, UNFINISHED

FOLDER = "exports"


class ExportNote(BaseModel):
    """One place that a version was written to, or was begun to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(pattern=r"^[0-9a-f]{64}$")
    kind: Literal["folder", "repository"]
    where: str = Field(description="The folder as the machine named it that wrote it, or OWNER/NAME of the hub's.")
    format: str

    def is_there(self) -> bool | None:
        """Whether the folder holds this version's export; None for a repository, which is not asked."""
        if self.kind == "repository":
            return None
        records = [Path(self.where) / name for name in (RECORD, UNFINISHED)]
        try:
            return any(path.is_file() and read_json(path).get("version") == self.version for path in records)
        except (IntegrityError, OSError, AttributeError):
            return True  # something of that name is there and can't be read: rather look once more


def note_export(home: Home, version: str, format: str, folder: Path) -> None:
    """Notes an export to a folder before it is written; one inside the home (the way to a hub) is no place it went."""
    if not folder.resolve().is_relative_to(home.path.resolve()):
        _note(home, ExportNote(version=version, kind="folder", where=str(folder), format=format))


def note_push(home: Home, version: str, repo: str) -> None:
    """Notes a push before it is made."""
    _note(home, ExportNote(version=version, kind="repository", where=repo, format="parquet"))


def list_exports(home: Home) -> list[ExportNote]:
    """All notes, by version and place; raises ``IntegrityError`` naming one that can't be read."""
    notes = []
    for path in sorted((home / FOLDER).glob("*.json")):
        try:
            notes.append(ExportNote.model_validate(read_json(path)))
        except ValidationError as error:
            raise IntegrityError(f"{path} is not an export's note: {error.errors()[0]['msg']}.") from error
    return sorted(notes, key=lambda note: (note.version, note.kind, note.where))


def _note(home: Home, note: ExportNote) -> None:
    key = short(digest_json([note.version, note.kind, note.where]), 16)
    write_json(home / FOLDER / f"{key}.json", note.model_dump(mode="json"))
