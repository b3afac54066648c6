"""Exporting a version: Parquet as it is, JSON lines, a ``datasets`` folder, or any of them in another tokenizer's
tokens.

    record = export_version(home, "3", Path("out"), "jsonl")

Every export holds the version's ``manifest.json``, whose SHA-256 is the version. Shards are written one by one in a
stream; an interrupted export is carried on by the same call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from storage.digests import digest_file, digest_json, digest_text, short
from storage.home import Home
from storage.manifests import MANIFEST
from storage.refs import Ref
from storage.schemas import SAMPLES
from storage.tables import check_ref, open_table
from storage.versions import table_refs, version_uri
from tasks.audit.subject import Subject
from tasks.exporting.card import CARD, export_card
from tasks.exporting.described import describable, description, put_description
from tasks.exporting.formats import file_entry, json_lines, read_rows, shard_file, write_dataset_files, write_rows
from tasks.exporting.noted import note_export
from tasks.exporting.record import (
    Counts,
    ExportFile,
    ExportOptions,
    ExportRecord,
    Format,
    Lengths,
    Repacked,
    Row,
)
from tasks.exporting.repacking import NOTE, REPACKED, repacked_rows
from tasks.exporting.target import Target
from tasks.exporting.texts import check_corpus
from tasks.exporting.tokenizers import OtherTokenizer, open_tokenizer
from tasks.progress import Advance, progress
from tasks.provenance.lookup import open_subject
from tasks.provenance.token_origins import tokens_of
from tasks.reporting.croissant import CROISSANT

TOKENIZER = "tokenizer"
"""Folder of the other tokenizer's files in an export."""


def export_version(
    home: Home,
    version: str,
    folder: Path,
    format: Format,
    *,
    tokenizer: str | None = None,
    copy: bool = False,
    croissant: bool = False,
) -> ExportRecord:
    """Exports a version, given as ``storage.versions.resolve_version`` takes it, and returns the record.

    ``tokenizer`` packs the samples anew with that folder's or hub id's tokenizer; ``copy`` makes copies where Parquet
    files would be hard links; ``croissant`` puts ``croissant.json`` beside them. An export that is there already and
    whole is left as it is.

    Raises ``InputError`` for an unknown version, a folder with other content, a corpus that is not in this home (with
    ``tokenizer``); ``PolicyError`` for a tokenizer that can't be used; ``IntegrityError`` for a damaged version;
    ``ConfigError`` where ``croissant`` does not apply or its library is missing; ``ResourceError`` on a full disk;
    ``BusyError`` when another process exports to the folder.
    """
    subject = open_subject(home, version)
    other = open_tokenizer(tokenizer) if tokenizer is not None else None
    if other is not None:
        check_corpus(subject)
        tokens_of(subject.home, subject.manifest.policy)
    options = ExportOptions(format=format, tokenizer=other.digest if other else None)
    beside = description(subject.manifest, options) if croissant else None
    folder = folder.expanduser().absolute()
    with home.lock(f"export-{digest_text(str(folder))[:16]}"):
        names = expected_names(subject, options, other) | ({CROISSANT} if describable(options) else set())
        target = Target(folder, subject.version, options, names)
        note_export(home, subject.version, format, folder)
        record = _written(target, subject, other, copy)
        if beside is not None:
            put_description(folder, beside)
    return record


def _written(target: Target, subject: Subject, other: OtherTokenizer | None, copy: bool) -> ExportRecord:
    """Writes what is not there of an export."""
    if target.finished is not None:
        return target.finished
    refs = table_refs(subject.version, subject.manifest, "samples")
    with progress("exporting", total=sum(ref.rows for ref in refs), unit="samples") as advance:
        for number, ref in enumerate(refs):
            _Shard(target, subject, number, ref, other, copy, advance).export()
    _rest(target, subject, other, copy)
    return target.finish(_record(target, subject, other))


def expected_names(subject: Subject, options: ExportOptions, other: OtherTokenizer | None) -> set[str]:
    """Every file of an export but its record."""
    shards = len(subject.manifest.names("samples"))
    if options.format == "parquet" and other is None:
        return {*subject.manifest.files, MANIFEST}
    names = {CARD, MANIFEST, *(shard_file(options.format, n, shards) for n in range(shards))}
    if options.format == "datasets":
        names |= {"dataset_info.json", "state.json"}
    if other is not None:
        names |= {f"{TOKENIZER}/{name}" for name in other.files} | {not_carried_file(n) for n in range(shards)}
    return names


def not_carried_file(shard: int) -> str:
    """Where an export lists what the other tokenizer's tokens could not carry."""
    return f"not-carried/not-carried-{shard:05d}.jsonl.zst"


@dataclass(frozen=True, slots=True)
class _Shard:
    """One shard of samples on its way into an export."""

    target: Target
    subject: Subject
    number: int
    ref: Ref
    other: OtherTokenizer | None
    copy: bool
    advance: Advance

    def export(self) -> None:
        """Writes the shard's files, unless they are there."""
        format = self.target.done.options.format
        name = shard_file(format, self.number, len(self.subject.manifest.names("samples")))
        if self.other is not None:
            self.target.shard((name, not_carried_file(self.number)), partial(self._repack, name, format))
        elif format == "parquet":
            self.target.shard((name,), partial(self._take, name))
        else:
            self.target.shard((name,), partial(self._write, name, format))

    def _take(self, name: str, counts: Counts) -> dict[str, ExportFile]:
        home = self.subject.home
        self.target.take(name, home / self.ref.uri, self.ref.sha256, self.ref.rows, copy=self.copy)
        with open_table(home.path, self.ref) as file:
            for batch in file.iter_batches(batch_size=65_536, columns=["length"]):
                for _ in self._tallied(batch.to_pylist(), counts):
                    pass
        return {name: self.target.done.files[name]}

    def _write(self, name: str, format: Format, counts: Counts) -> dict[str, ExportFile]:
        rows = read_rows(check_ref(self.subject.home.path, self.ref), "parquet")
        return {name: write_rows(self.target.folder, name, format, SAMPLES, self._tallied(rows, counts))}

    def _repack(self, name: str, format: Format, counts: Counts) -> dict[str, ExportFile]:
        assert self.other is not None
        subject, listed = self.subject, self.target.folder / not_carried_file(self.number)
        own = tokens_of(subject.home, subject.manifest.policy)
        path = check_ref(subject.home.path, self.ref)
        with json_lines(listed) as leave_out:
            rows = repacked_rows(subject, path, own, self.other, counts, leave_out)
            entry = write_rows(self.target.folder, name, format, REPACKED, self._tallied(rows, counts))
        return {name: entry, not_carried_file(self.number): file_entry(listed, counts.left_out)}

    def _tallied(self, rows: Iterable[Row], counts: Counts) -> Iterator[Row]:
        for row in rows:
            counts.add_sample(row)
            yield row
            self.advance(1)


def _rest(target: Target, subject: Subject, other: OtherTokenizer | None, copy: bool) -> None:
    """Everything but the samples; what makes a folder look like a finished one comes last."""
    manifest, options, folder = subject.manifest, target.done.options, subject.home / version_uri(subject.version)
    if other is not None:
        for name in other.files:
            path = other.folder / name
            target.take(f"{TOKENIZER}/{name}", path, digest_file(path), None, copy=True)
    if options.format == "parquet" and other is None:
        samples = manifest.names("samples")
        for name, entry in sorted((name, entry) for name, entry in manifest.files.items() if name not in samples):
            target.take(name, folder / name, entry.sha256, entry.rows, copy=copy)
    else:
        target.put(CARD, export_card(manifest, options, target.counts, other.name if other else None))
    if options.format == "datasets":
        schema = SAMPLES if other is None else REPACKED
        shards = manifest.names("samples")
        names = [shard_file("datasets", n, len(shards)) for n in range(len(shards))]
        fingerprint = digest_json([subject.version, options.model_dump()])
        write_dataset_files(target.folder, schema, names, fingerprint)
        for name in ("dataset_info.json", "state.json"):
            target.done.files[name] = file_entry(target.folder / name)
    target.take(MANIFEST, folder / MANIFEST, subject.version, None, copy=copy)


def _record(target: Target, subject: Subject, other: OtherTokenizer | None) -> ExportRecord:
    counts = target.counts
    repacked = None
    if other is not None:
        figures = counts.model_dump(exclude={"lengths"})
        repacked = Repacked(tokenizer=other.name, note=NOTE, **figures)
    return ExportRecord(
        version=subject.version,
        round=subject.manifest.round,
        recipe=subject.manifest.recipe,
        options=target.done.options,
        rows=sum(counts.lengths.values()),
        tokens=sum(length * number for length, number in counts.lengths.items()),
        lengths=Lengths.of(counts.lengths),
        repacked=repacked,
        files=target.done.files,
    )


def export_title(record: ExportRecord) -> str:
    """An export in a few words."""
    packed = f", tokens of {record.repacked.tokenizer}" if record.repacked else ""
    return f"version {short(record.version)} as {record.options.format}{packed}"
