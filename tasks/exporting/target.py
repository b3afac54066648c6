"""The folder of an export: begun, carried on or refused; finished by one rename.

An interrupted export leaves ``unfinished-export.json`` and no ``export.json``; the same command carries on with the
shards that are not done. What lies there and is no part of the export is never touched: the folder is refused.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from pydantic import ValidationError

from storage.digests import digest_file, short
from storage.errors import InputError, IntegrityError
from storage.files import disk_errors, fsync_folder, place, read_json, replacing, sweep, write_bytes, write_json
from storage.home import Home
from tasks.exporting.formats import file_entry
from tasks.exporting.record import (
    RECORD,
    UNFINISHED,
    Counts,
    ExportFile,
    ExportOptions,
    ExportRecord,
    Unfinished,
    present_files,
    read_record,
)


class Target:
    """A folder that an export of ``version`` under ``options`` is written to."""

    def __init__(self, folder: Path, version: str, options: ExportOptions, names: Collection[str]) -> None:
        """Opens a folder; ``names`` are the files that belong there.

        Raises ``InputError`` when it holds anything else, another export, or is a file.
        """
        self.folder = folder
        self.finished: ExportRecord | None = None
        self.done = Unfinished(version=version, options=options)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file, expected a folder.", hint="Give another --to.")
        present = self._present()
        if RECORD in present:
            record = read_record(folder)
            self._same(record.version, record.options)
            self._nothing_else(present, names)
            if not damaged_files(folder, record):
                self.finished = record
                return
            self._save()
            (folder / RECORD).unlink()
        elif UNFINISHED in present:
            known = _unfinished(folder)
            self._same(known.version, known.options)
            self._nothing_else(present, names)
            self.done = known
        else:
            self._nothing_else(present, ())
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
            self._save()

    def _present(self) -> set[str]:
        if not self.folder.is_dir():
            return set()
        sweep(self.folder)
        return present_files(self.folder)

    def _nothing_else(self, present: set[str], names: Collection[str]) -> None:
        strange = sorted(present - {RECORD, UNFINISHED, *names})
        if strange:
            more = ", …" if len(strange) > 3 else ""
            raise InputError(
                f"{self.folder} holds other things ({', '.join(strange[:3])}{more}).",
                hint="Give another --to, or an empty folder.",
            )

    def _same(self, version: str, options: ExportOptions) -> None:
        if (version, options) != (self.done.version, self.done.options):
            packed = f" in tokens of {short(options.tokenizer)}" if options.tokenizer else ""
            raise InputError(
                f"{self.folder} holds an export of version {short(version)} as {options.format}{packed}.",
                hint="Give another --to.",
            )

    def shard(self, names: Collection[str], write: Callable[[Counts], dict[str, ExportFile]]) -> None:
        """Writes the files of one shard, unless an earlier run did and they are whole; the first name is its key."""
        key = next(iter(names))
        known = [self.done.files.get(name) for name in names]
        if key in self.done.shards and all(
            entry is not None and _is_whole(self.folder / name, entry) for name, entry in zip(names, known, strict=True)
        ):
            return
        counts = Counts()
        self.done.files |= write(counts)
        self.done.shards[key] = counts
        self._save()

    def put(self, name: str, data: bytes) -> None:
        """Writes a small file."""
        if not (self.folder / name).is_file() or (self.folder / name).read_bytes() != data:
            write_bytes(self.folder / name, data)
        self.done.files[name] = file_entry(self.folder / name)

    def take(self, name: str, source: Path, sha256: str, rows: int | None, *, copy: bool = False) -> None:
        """Places a file whose digest is known: a hard link where the file system allows one, unless ``copy``.

        Raises ``IntegrityError`` when the source has another digest.
        """
        path = self.folder / name
        if not (path.is_file() and digest_file(path) == sha256 and (not copy or path.stat().st_nlink == 1)):
            path.unlink(missing_ok=True)
            if copy:
                write_copy(source, path)
            else:
                place(source.resolve(), path)
        entry = file_entry(path, rows)
        if entry.sha256 != sha256:
            path.unlink()
            raise IntegrityError(
                f"{source} was changed: sha256 {short(entry.sha256)}, expected {short(sha256)}.",
                hint="policylong audit names all damage.",
            )
        self.done.files[name] = entry

    @property
    def counts(self) -> Counts:
        """Of all shards."""
        total = Counts()
        for counts in self.done.shards.values():
            total.add(counts)
        return total

    def finish(self, record: ExportRecord) -> ExportRecord:
        """Writes the record: from here on the folder is an export."""
        for folder in sorted({(self.folder / name).parent for name in record.files} | {self.folder}):
            fsync_folder(folder)
        write_json(self.folder / RECORD, record.model_dump(mode="json"))
        (self.folder / UNFINISHED).unlink(missing_ok=True)
        return record

    def _save(self) -> None:
        write_json(self.folder / UNFINISHED, self.done.model_dump(mode="json"))


def write_copy(source: Path, target: Path) -> None:
    """A copy with blocks of its own."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def check_outside(home: Home, folder: Path) -> None:
    """Raises ``InputError`` for a folder inside the home: everything there has its place."""
    if folder.resolve().is_relative_to(home.path.resolve()):
        raise InputError(f"{folder} lies in the home {home.path}.", hint="Give a folder outside of it.")


def damaged_files(folder: Path, record: ExportRecord) -> list[str]:
    """Names of the record's files that are missing or not what it says."""
    return [name for name, entry in sorted(record.files.items()) if not _is_whole(folder / name, entry)]


def _is_whole(path: Path, entry: ExportFile) -> bool:
    return path.is_file() and not path.is_symlink() and digest_file(path) == entry.sha256


def _unfinished(folder: Path) -> Unfinished:
    try:
        return Unfinished.model_validate(read_json(folder / UNFINISHED))
    except (ValidationError, IntegrityError) as error:
        raise InputError(
            f"{folder / UNFINISHED} is not what an interrupted export leaves.", hint="Give another --to."
        ) from error
