"""What a user means: a version with its corpus, one sample of it, tokens of the sample."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from storage.corpora import Corpus
from storage.digests import short
from storage.errors import InputError, IntegrityError
from storage.home import Home
from storage.tables import open_table
from storage.versions import load_manifest, resolve_version, table_refs, version_uri
from tasks.audit.chain import corpus_at_hand
from tasks.audit.subject import Subject

SHORTEST_ID = 4
_PREFIX = re.compile(rf"[0-9a-f]{{{SHORTEST_ID},64}}")
_ROW = re.compile(r"\d{1,7}")
_SPAN = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of ``samples`` with its number in the version, from 0."""

    row: int
    sample_id: str
    input_ids: list[int]
    segments: list[dict[str, Any]]
    dependencies: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """The sample for people."""
        return f"sample {self.row} ({short(self.sample_id)})"


class Samples:
    """The samples of a version by number; memory holds one row group of one file."""

    def __init__(self, subject: Subject) -> None:
        refs = table_refs(subject.version, subject.manifest, "samples")
        self._files = [open_table(subject.home.path, ref) for ref in refs]
        self._group: tuple[int, int] | None = None
        self._rows: pa.Table | None = None
        self._last: Sample | None = None

    def __len__(self) -> int:
        return sum(file.metadata.num_rows for file in self._files)

    def __getitem__(self, row: int) -> Sample:
        """A sample; raises ``IndexError`` outside the version."""
        if self._last is not None and self._last.row == row:
            return self._last
        left = row
        for number, file in enumerate(self._files):
            for group in range(file.num_row_groups if left >= 0 else 0):
                rows = file.metadata.row_group(group).num_rows
                if left < rows:
                    return self._read(number, group, left, row)
                left -= rows
        raise IndexError(f"sample {row} of {len(self)}")

    def _read(self, file: int, group: int, place: int, row: int) -> Sample:
        if self._group != (file, group):
            self._rows, self._group = self._files[file].read_row_group(group), (file, group)
        assert self._rows is not None
        (found,) = self._rows.slice(place, 1).to_pylist()
        names = ("sample_id", "input_ids", "segments", "dependencies")
        self._last = Sample(row, *(found[name] for name in names))
        return self._last

    def close(self) -> None:
        """Closes the files."""
        for file in self._files:
            file.close()


def open_subject(home: Home, version: str) -> Subject:
    """The version a user means, with its corpus where that is at hand.

    ``version`` is what ``storage.versions.resolve_version`` takes. Raises ``InputError`` when it is unknown, ambiguous
    or was not finished, ``IntegrityError`` when its manifest was changed or a file is missing.
    """
    known = resolve_version(home, version)
    manifest = load_manifest(home, known)
    uri = version_uri(known)
    for name, entry in sorted(manifest.files.items()):
        path = home / uri / name
        if not path.is_file() or path.stat().st_size != entry.bytes:
            raise IntegrityError(
                f"{uri}/{name} is missing or was changed.", hint=f"policylong audit {short(known)} names all damage."
            )
    corpus = corpus_at_hand(home, manifest.corpus)
    return Subject(home, known, manifest, corpus if corpus and is_there(home, corpus) else None)


def is_there(home: Home, corpus: Corpus) -> bool:
    """Whether the texts of a corpus are where they should be; what is in them is for the audit."""
    return all((home / ref.uri).is_file() for ref in (corpus.documents, corpus.chunks))


@contextmanager
def readable(subject: Subject) -> Iterator[None]:
    """Turns what polars says of a damaged table into one line that names the version."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        problem = " ".join(str(error).split())[:200]
        raise IntegrityError(
            f"a table of version {short(subject.version)} can't be read ({problem}).",
            hint=f"policylong audit {short(subject.version)} names the file.",
        ) from error


def find_sample(subject: Subject, text: str) -> Sample:
    """The sample a user means: its row number from 0 (up to seven digits), or its id or a prefix of it.

    Raises ``InputError`` when the version has no such sample or more than one.
    """
    total = sum(ref.rows for ref in table_refs(subject.version, subject.manifest, "samples"))
    where = f"version {short(subject.version)} (round {subject.manifest.round})"
    if not total:
        raise InputError(f"{where} has no samples.", hint="Its report says what found no place, and why.")
    word = text.strip().lower()
    row = int(word) if _ROW.fullmatch(word) else _row_of(subject, word, text, where)
    if row >= total:
        raise InputError(f"{where} has samples 0 to {total - 1}: there is no sample {row}.")
    samples = Samples(subject)
    found = samples[row]
    samples.close()
    return found


def _row_of(subject: Subject, word: str, text: str, where: str) -> int:
    if not _PREFIX.fullmatch(word):
        raise InputError(f"{text!r} is neither a sample's number nor at least {SHORTEST_ID} characters of its id.")
    ids = subject.table("samples").select("sample_id").with_row_index("row")
    found = ids.filter(pl.col("sample_id").str.starts_with(word)).collect(engine="streaming")
    if not len(found):
        raise InputError(f"no sample of {where} begins with {word}.", hint="policylong search finds samples.")
    if len(found) > 1:
        some = ", ".join(short(name) for name in found["sample_id"][:3])
        raise InputError(f"{word} fits {len(found)} samples of {where}: {some}.", hint="Give more characters.")
    return int(found["row"].item())


def split_target(target: str) -> tuple[str, str | None]:
    """``SAMPLE[:TOKEN]`` in its two parts."""
    sample, colon, token = target.partition(":")
    return sample, token if colon else None


def find_span(sample: Sample, text: str) -> tuple[int, int]:
    """The tokens ``[start, end)`` that ``text`` names: an index, or ``a-b`` with both ends included.

    Raises ``InputError`` when they are not tokens of the sample.
    """
    found = _SPAN.fullmatch(text.strip())
    if not found:
        raise InputError(f"{text!r} names no token: give an index or a range such as 10-20.")
    first = int(found[1])
    last = int(found[2]) if found[2] else first
    length = len(sample.input_ids)
    if last < first:
        raise InputError(f"the range {text.strip()} ends before it begins.")
    if last >= length:
        raise InputError(f"{sample.name} has {length} tokens, 0 to {length - 1}: there is no token {last}.")
    return first, last + 1
