"""Which files a corpus is read from: paths given by the user become an ordered list of files of a known kind.

A folder is searched through; when it holds tables (Parquet, JSONL, Arrow) only these are read, so that the README
beside a dataset does not become a document. A folder that ``datasets`` saved is read in the order of its own listing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from storage.digests import digest_file
from storage.errors import InputError
from storage.files import read_json
from storage.inside import inside
from tasks.progress import track

Kind = Literal["parquet", "arrow", "jsonl", "text"]

SUFFIXES: dict[str, Kind] = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson.gz": "jsonl",
    ".jsonl.zst": "jsonl",
    ".ndjson.zst": "jsonl",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".markdown": "text",
    ".rst": "text",
}
KNOWN = ", ".join(SUFFIXES)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One input file; ``name`` is how it is called everywhere, without a path of this machine."""

    path: Path
    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Sources:
    """The files that will be read, in order, and how many in the folders were passed over."""

    files: tuple[SourceFile, ...]
    ignored: int

    def digests(self) -> list[tuple[str, str]]:
        """(name, SHA-256 of the bytes) of each file; every file is read once for it."""
        files = track(self.files, len(self.files), "hashing input files", "files")
        return [(file.name, digest_file(file.path)) for file in files]


def find_sources(paths: Sequence[str]) -> Sources:
    """The files behind the given paths.

    Raises ``InputError`` for a path that is missing, a suffix that is not known and a folder without a file to read.
    """
    found: list[SourceFile] = []
    ignored = 0
    for given in paths:
        path = Path(given).expanduser()
        if path.is_dir():
            inside, passed_over = _in_folder(path)
            found += inside
            ignored += passed_over
        elif path.is_file():
            found.append(_single(path))
        else:
            raise InputError(f"input {given} is missing.", hint="Give a file or a folder that exists.")
    return Sources(tuple(_unique_names(found)), ignored)


def _single(path: Path) -> SourceFile:
    kind = kind_of(path)
    if kind is None:
        raise InputError(f"the suffix of {path.name} is not known, expected one of {KNOWN}.")
    return SourceFile(path, _printable_name(path.name), kind)


def kind_of(path: Path) -> Kind | None:
    """The kind of a file by its suffix (the last two for ``.jsonl.gz``), or ``None``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return SUFFIXES.get("".join(suffixes[-2:])) or SUFFIXES.get("".join(suffixes[-1:]))


def _in_folder(folder: Path) -> tuple[list[SourceFile], int]:
    saved = list(_saved_dataset(folder))
    if saved:
        return saved, 0
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder)))
    files = [
        SourceFile(path, _printable_name(f"{folder.resolve().name}/{path.relative_to(folder).as_posix()}"), kind)
        for path in paths
        if (kind := kind_of(path)) is not None
    ]
    tables = [file for file in files if file.kind != "text"]
    if not files:
        raise InputError(f"folder {folder} holds no file to read, expected one of {KNOWN}.")
    return tables or files, len(paths) - len(tables or files)


def _hidden(relative: Path) -> bool:
    return any(part.startswith((".", "__pycache__")) for part in relative.parts)


def _saved_dataset(folder: Path) -> Iterator[SourceFile]:
    """The Arrow files of a folder made by ``datasets.Dataset.save_to_disk`` or ``DatasetDict.save_to_disk``."""
    if (folder / "dataset_dict.json").is_file():
        splits = read_json(folder / "dataset_dict.json").get("splits", [])
    elif (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        splits = ["."]
    else:
        return
    for split in splits:
        for entry in read_json(folder / _named(folder, split, "state.json")).get("_data_files", []):
            path = folder / _named(folder, split, str(entry["filename"]))
            if not path.is_file():
                raise InputError(f"{path} is missing; {folder.name} is an incomplete dataset.", hint="Save it again.")
            relative = path.relative_to(folder).as_posix()
            yield SourceFile(path, _printable_name(f"{folder.resolve().name}/{relative}"), "arrow")


def _named(folder: Path, split: str, name: str) -> str:
    try:
        return inside(name if split == "." else f"{split}/{name}")
    except ValueError as error:
        raise InputError(f"the listing of {folder.name} names a file outside of it ({name!r}).") from error


def _unique_names(files: Sequence[SourceFile]) -> Iterator[SourceFile]:
    """The same files; where two have one name, the later ones carry their number in front."""
    taken: set[str] = set()
    for number, file in enumerate(files):
        name = file.name if file.name not in taken else f"{number}:{file.name}"
        taken.add(name)
        yield SourceFile(file.path, name, file.kind)


def _printable_name(name: str) -> str:
    return name.encode("utf-8", "replace").decode("utf-8")
