"""Texts of many segments at once: what a stretch of samples needs is read from the corpus in one pass over it.

Samples mix chunks from everywhere, so that reading segment by segment would open a row group of the corpus for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from storage.digests import short
from storage.errors import InputError, IntegrityError
from tasks.audit.subject import Subject
from tasks.exporting.formats import ROWS_AT_ONCE
from tasks.exporting.record import Row
from tasks.provenance.lookup import readable
from tasks.provenance.token_origins import Offsets, Tokens
from tasks.whole_documents.tags import tag_text

WAVE_TOKENS = 32_000_000
"""Tokens of the samples whose texts are in memory at once (about 130 MB of English)."""


@dataclass(frozen=True, slots=True)
class SegmentText:
    """A segment's text: where it begins in its document (None for a tag), its text, and its whole origin's tokens."""

    start: int | None
    text: str
    origin_start: int
    origin: str
    offsets: Offsets


@dataclass(frozen=True, slots=True)
class _Origin:
    """A chunk, root or document: its first character in the document and its text."""

    start: int
    text: str


class Texts:
    """Texts of the segments of some samples; ``own`` is the tokenizer that the version was made with."""

    def __init__(self, subject: Subject, own: Tokens, ids: dict[str, list[str]]) -> None:
        with readable(subject):
            self._chunks = _chunks(subject, ids["chunk_id"])
            self._roots = _roots(subject, ids["root_id"])
            self._documents = _documents(subject, ids["doc_id"])
        self._own = own
        self._encoded = lru_cache(maxsize=256)(self._encode)

    def of(self, sample: Row, number: int) -> SegmentText:
        """The text of a sample's segment ``number``.

        Raises ``IntegrityError`` when the corpus does not give the segment's tokens.
        """
        segment = sample["segments"][number]
        if segment["kind"] == "tag":
            text = tag_text(segment["doc_id"], segment["source_start"])
            return SegmentText(None, text, 0, text, ())
        origin = self._origin(segment)
        where = f"sample {short(sample['sample_id'])}, segment {number} ({segment['kind']})"
        if origin is None:
            raise IntegrityError(
                f"{where}: its origin is not in the corpus.", hint="policylong audit checks version and corpus."
            )
        ids, offsets = self._encoded(segment["kind"], _key(segment))
        first = segment["source_start"]
        stop = first + segment["end"] - segment["start"]
        if list(ids[first:stop]) != sample["input_ids"][segment["start"] : segment["end"]]:
            raise IntegrityError(
                f"{where}: corpus and tokenizer do not give its tokens.",
                hint="policylong audit checks version and corpus.",
            )
        start, end = piece(offsets, first, stop, len(origin.text))
        return SegmentText(origin.start + start, origin.text[start:end], origin.start, origin.text, offsets)

    def _origin(self, segment: Row) -> _Origin | None:
        return self._table(segment["kind"]).get(_key(segment))

    def _table(self, kind: str) -> dict[str, _Origin]:
        return {"root": self._roots, "document": self._documents}.get(kind, self._chunks)

    def _encode(self, kind: str, key: str) -> tuple[Any, Offsets]:
        return self._own.encode(self._table(kind)[key].text)


def piece(offsets: Offsets, first: int, stop: int, length: int) -> tuple[int, int]:
    """Characters ``[start, end)`` of tokens ``[first, stop)`` of a text of ``length`` characters, ``first < stop``.

    They begin where the token before ends, so the pieces of a text that was cut between tokens are the whole text: a
    character whose bytes are in two tokens stays in the piece that has the first, what no token holds in the one after.
    """
    return offsets[first - 1][1] if first else 0, length if stop == len(offsets) else offsets[stop - 1][1]


def _key(segment: Row) -> str:
    column = {"root": "root_id", "document": "doc_id"}.get(segment["kind"], "chunk_id")
    return str(segment[column])


def check_corpus(subject: Subject) -> None:
    """Raises ``InputError`` when the corpus is not in this home."""
    if subject.corpus is None:
        raise InputError(
            f"version {short(subject.version)} can't be packed anew: its corpus {short(subject.manifest.corpus)} is not"
            " in this home, and the texts are there.",
            hint="Ingest it again, or export the version's own tokens (without --tokenizer).",
        )


def waves(subject: Subject, own: Tokens, path: Path) -> Iterator[tuple[Row, Texts]]:
    """Every sample of a shard, in order, with what reads its segments; memory holds a wave's texts.

    Raises ``InputError`` when the corpus is not in this home.
    """
    check_corpus(subject)
    with pq.ParquetFile(path) as file:
        for groups in _groups(file):
            spans = file.read_row_groups(groups, columns=["segments"])
            texts = Texts(subject, own, _ids(spans))
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=groups):
                for row in batch.to_pylist():
                    yield row, texts


def _groups(file: pq.ParquetFile) -> Iterator[list[int]]:
    """Consecutive row groups of at most ``WAVE_TOKENS`` together (a larger one alone)."""
    wave: list[int] = []
    tokens = 0
    for group in range(file.num_row_groups):
        own = sum(file.read_row_group(group, columns=["length"]).column(0).to_pylist())
        if wave and tokens + own > WAVE_TOKENS:
            yield wave
            wave, tokens = [], 0
        wave.append(group)
        tokens += own
    if wave:
        yield wave


def _ids(spans: Any) -> dict[str, list[str]]:
    """Digests of the chunks, roots and whole documents that a table of ``segments`` names."""
    frame = pl.from_arrow(spans)
    assert isinstance(frame, pl.DataFrame)
    each = frame.explode("segments").drop_nulls().unnest("segments")
    whole = each.filter(pl.col("kind") == "document")
    roots, chunks = each.filter(pl.col("kind") == "root"), each.filter(pl.col("chunk_id").is_not_null())
    picked = {"chunk_id": chunks, "root_id": roots, "doc_id": whole}
    return {name: rows[name].drop_nulls().unique().to_list() for name, rows in picked.items()}


def _chunks(subject: Subject, ids: list[str]) -> dict[str, _Origin]:
    if not ids:
        return {}
    assert subject.corpus is not None
    rows = pl.scan_parquet(subject.home / subject.corpus.chunks.uri).filter(pl.col("chunk_id").is_in(ids))
    return _origins(rows.select("chunk_id", "char_start", "text"))


def _roots(subject: Subject, ids: list[str]) -> dict[str, _Origin]:
    if not ids:
        return {}
    wanted = subject.table("roots").filter(pl.col("root_id").is_in(ids))
    rows = wanted.select("root_id", "doc", "char_start", "char_end")
    documents = _scan(subject).select(pl.col("doc").cast(pl.Int32), "text")
    length = pl.col("char_end") - pl.col("char_start")
    cut = pl.col("text").str.slice(pl.col("char_start"), length)
    return _origins(rows.join(documents, on="doc").select("root_id", "char_start", cut))


def _documents(subject: Subject, ids: list[str]) -> dict[str, _Origin]:
    if not ids:
        return {}
    rows = _scan(subject).filter(pl.col("doc_id").is_in(ids))
    return _origins(rows.select("doc_id", pl.lit(0, pl.Int32).alias("char_start"), "text"))


def _scan(subject: Subject) -> pl.LazyFrame:
    assert subject.corpus is not None
    return pl.scan_parquet(subject.home / subject.corpus.documents.uri, row_index_name="doc")


def _origins(rows: pl.LazyFrame) -> dict[str, _Origin]:
    return {key: _Origin(start, text) for key, start, text in rows.collect(engine="streaming").iter_rows()}
