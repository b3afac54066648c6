"""Audit of an export: its record, every file, the version's own manifest, and that the content is the version's.

What proves it: ``manifest.json`` has the version as its SHA-256, so Parquet files are proved by it alone. Other formats
are read beside the version's samples where that is in the home; a packing in other tokens is done again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from storage.digests import digest_file, digest_json, short
from storage.errors import InputError, IntegrityError, PolicyError, PolicylongError
from storage.files import read_json
from storage.findings import Finding, failed, failures, not_checkable, passed
from storage.home import Home
from storage.manifests import MANIFEST, Manifest, parse_manifest
from storage.tables import check_ref
from storage.versions import table_refs
from tasks.audit.checks import AuditReport
from tasks.audit.subject import Subject
from tasks.exporting.described import audit_description
from tasks.exporting.exporting import TOKENIZER, export_title, not_carried_file
from tasks.exporting.formats import read_lines, read_rows, shard_file
from tasks.exporting.record import RECORD, UNFINISHED, Counts, ExportRecord, Lengths, Row, present_files, read_record
from tasks.exporting.repacking import repacked_rows
from tasks.exporting.tokenizers import tokenizer_in
from tasks.progress import track
from tasks.provenance.lookup import open_subject
from tasks.provenance.token_origins import tokens_of
from tasks.reporting.croissant import CROISSANT

CONTENT = "the content is the version's"
NAMED = "every sample has the digest it is named by"


def audit_export(folder: Path, home: Home | None) -> AuditReport:
    """Audits an export; ``home`` is where the version may be, if there is one.

    Raises ``InputError`` for an export that was not finished.
    """
    if not (folder / RECORD).is_file():
        version = str(read_json(folder / UNFINISHED).get("version", ""))
        raise InputError(
            f"the export in {folder} of version {short(version)} was not finished.",
            hint="The export command that was interrupted carries on.",
        )
    try:
        record = read_record(folder)
    except IntegrityError as error:
        return AuditReport(version=folder.name, round=None, findings=(failed("export record", error.message, RECORD),))
    findings = [passed("export record", export_title(record), RECORD), *_files(folder, record)]
    manifest = _manifest(folder, record)
    findings.append(manifest if isinstance(manifest, Finding) else passed("the version's manifest", "", MANIFEST))
    if isinstance(manifest, Finding) or failures(findings):
        findings.append(not_checkable(CONTENT, "files of the export are damaged, see above"))
    else:
        findings += track(_content(folder, record, manifest, home), None, "comparing with the version", "checks")
    return AuditReport(version=record.version, round=record.round, findings=tuple(findings))


def _files(folder: Path, record: ExportRecord) -> Iterator[Finding]:
    for name, entry in track(sorted(record.files.items()), len(record.files), "hashing files", "files"):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            yield failed("export file", "is missing", name)
        elif (found := digest_file(path)) != entry.sha256:
            yield failed("export file", f"was changed: sha256 {short(found)}, expected {short(entry.sha256)}", name)
        else:
            rows = f", {entry.rows} rows" if entry.rows is not None else ""
            yield passed("export file", f"sha256 {short(found)}{rows}", name)
    beside = audit_description(folder, record)
    if beside is not None:
        yield beside
    for name in sorted(present_files(folder) - record.files.keys() - {RECORD, UNFINISHED, CROISSANT}):
        yield failed("export file", "is not in the record", name)


def _manifest(folder: Path, record: ExportRecord) -> Manifest | Finding:
    check, path = "the version's manifest", folder / MANIFEST
    if not path.is_file():
        return failed(check, "is missing", MANIFEST)
    if digest_file(path) != record.version:
        return failed(check, f"is not that of version {short(record.version)}", MANIFEST)
    try:
        return parse_manifest(path.read_bytes(), MANIFEST)
    except IntegrityError as error:
        return failed(check, error.message, MANIFEST)


def _content(folder: Path, record: ExportRecord, manifest: Manifest, home: Home | None) -> Iterator[Finding]:
    same = (record.round, record.recipe) == (manifest.round, manifest.recipe)
    yield passed("round and recipe") if same else failed("round and recipe", "are not the manifest's", RECORD)
    if record.options.format == "parquet" and record.repacked is None:
        yield from _as_it_is(record, manifest)
    try:
        yield from _samples(folder, record, manifest)
    except IntegrityError as error:
        yield failed(NAMED, error.message)
        return
    except (KeyError, TypeError) as error:
        yield failed(NAMED, f"rows are not samples ({type(error).__name__}: {error})")
        return
    if record.options.format != "parquet" or record.repacked is not None:
        yield from _beside_the_version(folder, record, manifest, home)


def _as_it_is(record: ExportRecord, manifest: Manifest) -> Iterator[Finding]:
    wrong = [
        name
        for name, entry in manifest.files.items()
        if name not in record.files or record.files[name].sha256 != entry.sha256
    ]
    extra = sorted(record.files.keys() - manifest.files.keys() - {MANIFEST})
    if wrong or extra:
        yield failed(CONTENT, f"{len(wrong) + len(extra)} files differ, the first: {[*wrong, *extra][0]}", RECORD)
    else:
        yield passed(CONTENT, f"{len(manifest.files)} files as the version's manifest has them")


def _shards(folder: Path, record: ExportRecord, manifest: Manifest) -> list[Path]:
    count = len(manifest.names("samples"))
    return [folder / shard_file(record.options.format, number, count) for number in range(count)]


def _samples(folder: Path, record: ExportRecord, manifest: Manifest) -> Iterator[Finding]:
    """Rows, lengths and names of the samples, from the export alone."""
    counts, misnamed = Counts(), list[str]()
    for path in _shards(folder, record, manifest):
        before = sum(counts.lengths.values())
        for row in read_rows(path, record.options.format):
            counts.add_sample(row)
            whole = row["length"] == len(row["input_ids"])
            if not whole or digest_json([row["input_ids"], row["segments"]]) != row["sample_id"]:
                misnamed.append(str(row["sample_id"]))
        name, own = path.relative_to(folder).as_posix(), sum(counts.lengths.values()) - before
        if record.files[name].rows != own:
            yield failed("rows", f"has {own}, the record says {record.files[name].rows}", name)
    first = f"{len(misnamed)} have another, the first: {short(misnamed[0])}" if misnamed else ""
    yield failed(NAMED, first) if misnamed else passed(NAMED)
    rows = sum(counts.lengths.values())
    tokens = sum(length * number for length, number in counts.lengths.items())
    expected = sum(manifest.files[name].rows or 0 for name in manifest.names("samples"))
    wrong = (rows, tokens, Lengths.of(counts.lengths)) != (record.rows, record.tokens, record.lengths)
    found = f"{rows} samples, {tokens} tokens"
    yield (
        failed("samples and tokens", f"{found}, the record says otherwise")
        if wrong
        else passed("samples and tokens", found)
    )
    check = "as many samples as the version has"
    yield passed(check) if rows == expected else failed(check, f"{rows}, the version has {expected}")


def _beside_the_version(folder: Path, record: ExportRecord, manifest: Manifest, home: Home | None) -> Iterator[Finding]:
    if home is None:
        yield not_checkable(CONTENT, "there is no home to look for the version in")
        return
    try:
        subject = open_subject(home, record.version)
    except InputError:
        yield not_checkable(CONTENT, f"version {short(record.version)} is not in {home.path}")
        return
    except IntegrityError as error:
        yield not_checkable(CONTENT, f"the version itself is damaged: {error.message}")
        return
    try:
        differing = next(_differences(folder, record, subject), None)
    except (InputError, PolicyError) as error:
        yield not_checkable(CONTENT, error.message)
        return
    except PolicylongError as error:
        yield not_checkable(CONTENT, f"the version itself is damaged: {error.message}")
        return
    yield failed(CONTENT, differing) if differing else passed(CONTENT, f"{record.rows} samples, row by row")


def _differences(folder: Path, record: ExportRecord, subject: Subject) -> Iterator[str]:
    """What an export holds that the version does not give, sample by sample."""
    counts = Counts()
    other = tokenizer_in(folder / TOKENIZER, record.repacked.tokenizer) if record.repacked is not None else None
    own = tokens_of(subject.home, subject.manifest.policy) if other is not None else None
    refs = table_refs(subject.version, subject.manifest, "samples")
    for number, (path, ref) in enumerate(zip(_shards(folder, record, subject.manifest), refs, strict=True)):
        source = check_ref(subject.home.path, ref)
        missing: list[Row] = []
        if other is None or own is None:
            rows = read_rows(source, "parquet")
        else:
            rows = repacked_rows(subject, source, own, other, counts, missing.append)
        for place, (found, expected) in enumerate(zip_longest(read_rows(path, record.options.format), rows)):
            if found != expected:
                yield f"{path.relative_to(folder).as_posix()}, row {place} differs from the version's"
        if other is not None and list(read_lines(folder / not_carried_file(number))) != missing:
            yield f"{not_carried_file(number)} is not what could not be carried over"
    if other is not None and record.repacked is not None:
        if other.digest != record.options.tokenizer:
            yield f"{TOKENIZER}/ holds another tokenizer"
        if counts.model_dump(exclude={"lengths"}) != record.repacked.model_dump(exclude={"tokenizer", "note"}):
            yield "what was carried over is not what the record says"
