"""Dataset versions: immutable folders named by the digest of their manifest.

    versions/<version16>/
        manifest.json                 canonical JSON; its SHA-256 is the version; written last
        README.md  config.json        dataset card and resolved configuration
        samples/samples-00000.parquet …
        tables/<table>-00000.parquet …

Publishing puts the files into their final folder one by one, each by an atomic rename after its digest was checked,
and the manifest last, after everything before it was fsynced. The folder's name is known beforehand (it is the
manifest's digest), so there is no staging folder to clean up: a process killed at any point leaves a folder without a
manifest, which is not a round, and the same call finishes it. Files that are already right are left alone, damaged
ones are replaced from their source. Tables are hard links to the step outputs where the file system allows it: a
version costs no second copy on disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage.campaigns import round_version
from storage.digests import digest_file, short
from storage.errors import InputError, IntegrityError
from storage.files import disk_errors, fsync_folder, place, write_bytes
from storage.findings import Finding, failed, passed
from storage.home import Home
from storage.manifests import (
    MANIFEST,
    FileEntry,
    Manifest,
    NumericEnvironment,
    Source,
    entries_of,
    entry_of,
    parse_manifest,
    shard_name,
)
from storage.refs import Ref
from storage.schemas import TABLES
from storage.tombstones import list_tombstones, tombstone_of

__all__ = [
    "MANIFEST",
    "FileEntry",
    "Finding",
    "Manifest",
    "NumericEnvironment",
    "Source",
    "entries_of",
    "entry_of",
    "list_versions",
    "load_manifest",
    "publish_version",
    "resolve_version",
    "shard_name",
    "table_refs",
    "verify_version",
    "version_bytes",
    "version_uri",
]

FOLDER_LENGTH = 16
SHORTEST_PREFIX = 4
_LEFTOVER = re.compile(r"^\..*\.\d+\.tmp$")


def version_bytes(home: Home, version: str) -> int:
    """Bytes of a version's folder."""
    return sum(path.stat().st_size for path in (home / version_uri(version)).rglob("*") if path.is_file())


def version_uri(version: str) -> str:
    """The folder of a version, relative to the home."""
    return f"versions/{short(version, FOLDER_LENGTH)}"


def publish_version(home: Home, manifest: Manifest, files: Mapping[str, Source]) -> str:
    """Makes the version folder of a manifest whole and returns the version; repeatable after a kill at any point.

    ``files`` gives a source for every name in ``manifest.files``. A folder that is already whole is only verified.
    Raises ``IntegrityError`` when a source is not what the manifest says, ``ResourceError`` on a full disk,
    ``BusyError`` when another process publishes the same version for more than a minute.
    """
    if files.keys() != manifest.files.keys():
        differing = ", ".join(sorted(files.keys() ^ manifest.files.keys()))
        raise IntegrityError(f"files to publish and manifest differ in: {differing}.")
    version = manifest.version
    folder = home.folder(version_uri(version))
    with home.lock(f"version-{short(version, FOLDER_LENGTH)}", wait_seconds=60):
        _sweep(folder)
        for name, entry in sorted(manifest.files.items()):
            _publish_file(home, folder / name, files[name], entry)
        for path in sorted({(folder / name).parent for name in manifest.files} | {folder, folder.parent}):
            fsync_folder(path)
        if not _holds(folder / MANIFEST, manifest.canonical):
            write_bytes(folder / MANIFEST, manifest.canonical)
    return version


def _publish_file(home: Home, target: Path, source: Source, entry: FileEntry) -> None:
    if target.is_file() and not target.is_symlink() and digest_file(target) == entry.sha256:
        return
    target.unlink(missing_ok=True)
    if isinstance(source, bytes):
        write_bytes(target, source)
    else:
        origin = home / source.uri if isinstance(source, Ref) else source
        if not origin.is_file():
            raise IntegrityError(f"{origin} is missing.", hint="Run the same command again to make it anew.")
        place(origin.resolve(), target)
        with disk_errors(target), target.open("rb") as file:
            os.fsync(file.fileno())
    problem = _file_problem(target, entry)
    if problem:
        target.unlink()
        raise IntegrityError(
            f"{target.relative_to(home.path)} can't be published: {problem}.",
            hint="Run the same command again to make it anew.",
        )


def _sweep(folder: Path) -> None:
    """Removes the half-written files of a publication that was killed."""
    for path in folder.rglob(".*"):
        if _LEFTOVER.match(path.name) and path.is_file():
            path.unlink()


def _holds(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


def load_manifest(home: Home, version: str) -> Manifest:
    """The manifest of a version given in full or as an unambiguous prefix.

    Raises ``InputError`` for an unknown version and ``IntegrityError`` when the manifest is not the one the folder is
    named for.
    """
    known = resolve_version(home, version) if len(version) < 64 else version
    uri = f"{version_uri(known)}/{MANIFEST}"
    path = home / uri
    if not path.is_file():
        raise InputError(
            f"there is no dataset version {short(known)} in {home.path}.", hint="policylong status lists what is there."
        )
    data = path.read_bytes()
    found = digest_file(path)
    if not found.startswith(known):
        raise IntegrityError(
            f"{uri} was changed: sha256 {short(found)}, expected {short(known)}.",
            hint=f"policylong audit {short(known)} checks the whole version.",
        )
    return parse_manifest(data, uri)


def table_refs(version: str, manifest: Manifest, table: str) -> tuple[Ref, ...]:
    """Refs of a published table's shards, in order."""
    refs = []
    for name in manifest.names(table):
        entry = manifest.files[name]
        refs.append(Ref(uri=f"{version_uri(version)}/{name}", sha256=entry.sha256, rows=entry.rows or 0, table=table))
    return tuple(refs)


def list_versions(home: Home) -> list[str]:
    """Every version of the home in full, sorted; one whose manifest was changed is given by its folder's name."""
    found = []
    for manifest in sorted((home / "versions").glob(f"*/{MANIFEST}")):
        digest, folder = digest_file(manifest), manifest.parent.name
        found.append(digest if digest.startswith(folder) else folder)
    return found


def resolve_version(home: Home, text: str) -> str:
    """The version a user means: a round number of the current campaign, ``campaign:round``, a full version or a prefix
    of one.

    A number of up to three digits is a round. Raises ``InputError`` when nothing or more than one version fits, saying
    so where a version was not finished or was removed by gc.
    """
    word = text.strip().lower()
    name, _, number = text.strip().rpartition(":")
    if re.fullmatch(r"\d{1,3}", number):
        return round_version(home, int(number), name or None)
    hint = "policylong status lists the versions."
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST_PREFIX},64}}", word):
        raise InputError(
            f"{text!r} is neither a round number nor at least {SHORTEST_PREFIX} characters of a dataset version.",
            hint=hint,
        )
    known = list_versions(home)
    fitting = [
        version for version in known if version.startswith(word) or (len(version) < 64 and word.startswith(version))
    ]
    if not fitting:
        why, other = _why_unknown(home, word)
        raise InputError(f"no dataset version begins with {word} in {home.path}{why}.", hint=other or hint)
    if len(fitting) > 1:
        raise InputError(f"{word} is ambiguous: {', '.join(map(short, fitting))}.", hint="Give more characters.")
    return fitting[0] if len(fitting[0]) > len(word) else word


def _why_unknown(home: Home, word: str) -> tuple[str, str]:
    """What is known of a version that is none: it was not finished, or gc removed it; with another hint."""
    for folder in sorted((home / "versions").glob(f"{word[:FOLDER_LENGTH]}*")):
        uri = f"versions/{folder.name}"
        if folder.is_dir() and tombstone_of(home, f"{uri}/{MANIFEST}") is None:
            return f": {uri} has no manifest, that round was not finished", "The command that built it carries on."
    gone = [stone for stone in list_tombstones(home) if stone.uri.startswith(f"versions/{word[:FOLDER_LENGTH]}")]
    if gone:
        return f": {gone[-1].uri} was {gone[-1].line}", "The same preset builds it again."
    return "", ""


def verify_version(home: Home, version: str, *, advance: Callable[[float], None] | None = None) -> list[Finding]:
    """Hashes every file of a version again; one finding per file, with what is missing, changed, wrong or unexpected.

    ``version`` is full, or the folder's name; ``advance`` is told the bytes of each file looked at. Never raises for
    what it finds on disk: a damaged version is a finding.
    """
    uri = version_uri(version)
    folder = home / uri
    name = f"{uri}/{MANIFEST}"
    path = folder / MANIFEST
    if not path.is_file():
        return [failed("manifest", "is missing: a folder without a manifest is not a round", name)]
    found = digest_file(path)
    if not found.startswith(version):
        findings = [failed("manifest", f"was changed: sha256 {short(found)}, expected {short(version)}", name)]
    else:
        findings = [passed("manifest", f"sha256 is the version {short(found)}", name)]
    try:
        manifest = parse_manifest(path.read_bytes(), name)
    except IntegrityError as error:
        return [*[f for f in findings if f.status == "failed"], failed("manifest", error.message, name)]
    for relative, entry in sorted(manifest.files.items()):
        problem = _file_problem(folder / relative, entry)
        if advance is not None:
            advance(entry.bytes)
        rows = f", {entry.rows} rows" if entry.rows is not None else ""
        where = f"{uri}/{relative}"
        findings.append(
            failed("file", problem, where) if problem else passed("file", f"sha256 {short(entry.sha256)}{rows}", where)
        )
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()}
    for extra in sorted(present - manifest.files.keys() - {MANIFEST}):
        findings.append(failed("file", "is not in the manifest", f"{uri}/{extra}"))
    return findings


def _file_problem(path: Path, entry: FileEntry) -> str | None:
    """What is wrong with a file, or ``None``."""
    if path.is_symlink():
        return "is a symbolic link, expected a file"
    if not path.is_file():
        return "is missing"
    size, found = path.stat().st_size, digest_file(path)
    if size != entry.bytes:
        return f"has {size} bytes, expected {entry.bytes} (sha256 {short(found)}, expected {short(entry.sha256)})"
    if found != entry.sha256:
        return f"was changed: sha256 {short(found)}, expected {short(entry.sha256)}"
    return None if entry.table is None else _table_problem(path, entry)


def _table_problem(path: Path, entry: FileEntry) -> str | None:
    if entry.table not in TABLES:
        return f"is of an unknown table {entry.table!r}"
    try:
        with pq.ParquetFile(path) as file:
            rows, schema = file.metadata.num_rows, file.schema_arrow
    except (OSError, pa.ArrowInvalid) as error:
        return f"is not a Parquet file ({error})"
    if rows != entry.rows:
        return f"has {rows} rows, the manifest says {entry.rows}"
    if not schema.equals(TABLES[entry.table].arrow):
        return f"does not have the columns of table {entry.table}"
    return None
