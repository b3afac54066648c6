"""``policylong search``: which samples hold a text, a document, chunk or root.

The text is looked for in the documents with white space folded, in a stream: memory holds ids and row numbers, never
the corpus. A hit's place in tokens comes from the policy's tokenizer; without it a hit is the whole segment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from storage.digests import short
from storage.errors import InputError, IntegrityError, PolicyError
from storage.home import Home
from storage.tables import RowReader
from tasks.audit.subject import Subject
from tasks.corpus.overlap import fold
from tasks.provenance.lookup import Sample, Samples, open_subject, readable
from tasks.provenance.token_origins import Origins, Tokens, tokens_of

SHORTEST_ID = 8
EXCERPT = 60
"""Characters shown on either side of what was found."""
IDS = ("sample_id", "root_id", "chunk_id", "doc_id")
NAMES = ("source", "title")
TEXT = "text"
MATCHED = (*IDS, TEXT, *NAMES)
"""What may be found, the best first: a text says where it stands, a name only whose segment it is."""
_BLANK = r"[\s\x1c-\x1f]+"  # white space to Python; the regular expressions of polars do not count the last four
_AT_ONCE = 64


class Hit(BaseModel):
    """A segment in which something was found; the first place in it, of ``times``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: int = Field(description="The sample's number in the version, from 0.")
    sample_id: str
    segment: int = Field(description="Number of the segment in the sample, from 0.")
    kind: str
    start: int = Field(description="First token in the sample: of the text, or of the segment.")
    end: int = Field(description="Token after the last.")
    doc_id: str
    source: str | None
    title: str | None
    matched: str = Field(description="What was found: text, source, title, sample_id, root_id, chunk_id or doc_id.")
    times: int = Field(description="How often the text stands in the segment; 1 for anything else.")
    exact: bool = Field(description="False when the segment is cut and no tokenizer tells whether the text is left.")
    before: str
    found: str
    after: str


class SearchResult(BaseModel):
    """Hits in the order of the samples."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    asked: str
    hits: tuple[Hit, ...]
    more: bool = Field(description="Whether there are more than the limit.")
    unknown: tuple[str, ...] = Field(description="What could not be searched, and why.")


def search(home: Home, version: str, text: str, *, limit: int = 20) -> SearchResult:
    """The first ``limit`` segments of a version that hold a text (case counts, white space is folded), or whose sample,
    root, chunk or document id begins with it (8 hex digits or more), or whose document's source or title has it.

    Raises ``InputError`` for an unknown version, an empty text, and a text when the corpus is not in this home.
    """
    folded = fold(text)
    if not folded:
        raise InputError("there is nothing to search for: the text is empty.")
    subject = open_subject(home, version)
    is_id = re.fullmatch(rf"[0-9a-f]{{{SHORTEST_ID},64}}", folded.lower()) is not None
    notes: list[str] = []
    if subject.corpus is None:
        gone = f"corpus {short(subject.manifest.corpus)} of version {short(subject.version)} is not in this home"
        if not is_id:
            raise InputError(
                f"{gone}: its texts can't be searched.",
                hint=f"An id can be: at least {SHORTEST_ID} digits of a sample's, root's, chunk's or document's.",
            )
        notes.append(f"{gone}: only ids were searched")
    tokens: Tokens | None = None
    try:
        tokens = tokens_of(home, subject.manifest.policy)
    except (PolicyError, IntegrityError) as error:
        notes.append(f"hits are whole segments: {error.message.rstrip('.')}")
    with readable(subject):
        found = _matching(subject, folded, is_id=is_id)
        hits = list(islice(_hits(subject, found, folded, tokens), limit + 1))
    return SearchResult(
        version=subject.version, asked=text, hits=tuple(hits[:limit]), more=len(hits) > limit, unknown=tuple(notes)
    )


def spans_of(subject: Subject) -> pl.LazyFrame:
    """One row per segment: ``row`` of the sample, ``sample_id``, number of the ``segment``, the segment's fields."""
    samples = subject.table("samples").select("sample_id", "segments").with_row_index("row")
    filled = samples.filter(pl.col("segments").list.len() > 0)
    numbered = filled.with_columns(pl.int_ranges(pl.col("segments").list.len()).alias("segment"))
    return numbered.explode("segments", "segment").unnest("segments")


def _matching(subject: Subject, folded: str, *, is_id: bool) -> pl.DataFrame:
    """(row, segment, what matched) of every segment that may hold it; a text still has to be looked for there."""
    spans = spans_of(subject)
    place = ("row", "segment")
    found: list[pl.LazyFrame] = []
    if is_id:
        for name in IDS:
            own = spans.filter(pl.col(name).str.starts_with(folded.lower()))
            own = own.filter(pl.col("segment") == 0) if name == "sample_id" else own
            found.append(own.select(*place, _matched(name)))
    if subject.corpus is not None:
        documents = subject.documents()
        for name in NAMES:
            named = documents.filter(pl.col(name).str.contains(folded, literal=True)).select("doc_id")
            found.append(spans.join(named, on="doc_id", how="semi").select(*place, _matched(name)))
        for key, named in _holding(subject, folded).items():
            found.append(_whose(spans, key).join(named, on=key, how="semi").select(*place, _matched(TEXT)))
    every = pl.concat(found).group_by(place).agg(pl.col("matched").unique().sort()).sort(place)
    return every.collect(engine="streaming")


def _matched(name: str) -> pl.Expr:
    return pl.lit(MATCHED.index(name)).alias("matched")


def _whose(spans: pl.LazyFrame, key: str) -> pl.LazyFrame:
    """The segments whose origin is the chunk, root or document named in a column."""
    if key == "doc_id":
        return spans.filter(pl.col("chunk_id").is_null() & pl.col("root_id").is_null() & (pl.col("kind") != "tag"))
    return spans.filter(pl.col("chunk_id").is_null()) if key == "root_id" else spans


def _holding(subject: Subject, folded: str) -> dict[str, pl.LazyFrame]:
    """The chunks, roots and documents whose text holds it, each a frame of one column of ids."""
    assert subject.corpus is not None
    home, corpus = subject.home, subject.corpus
    holds = pl.col("text").str.replace_all(_BLANK, " ").str.contains(folded, literal=True)
    scanned = pl.scan_parquet(home / corpus.documents.uri, row_index_name="doc").filter(holds).select("doc", "doc_id")
    documents = scanned.with_columns(pl.col("doc").cast(pl.Int32)).collect(engine="streaming").lazy()
    roots = list(_roots_holding(subject, documents.select("doc"), pattern(folded)))
    return {
        "chunk_id": pl.scan_parquet(home / corpus.chunks.uri).filter(holds).select("chunk_id"),
        "root_id": pl.LazyFrame({"root_id": roots}, schema={"root_id": pl.String}),
        "doc_id": documents.select("doc_id"),
    }


def _roots_holding(subject: Subject, documents: pl.LazyFrame, wanted: re.Pattern[str]) -> Iterator[str]:
    """Roots of these documents whose own window holds the text, document after document."""
    assert subject.corpus is not None
    roots = subject.table("roots").join(documents, on="doc", how="semi")
    found = roots.select("root_id", "doc", "char_start", "char_end").sort("doc", "char_start").collect()
    reader = RowReader(subject.home.path, subject.corpus.documents, ["text"], kept_bytes=0)
    for root_id, doc, start, end in found.iter_rows():
        if wanted.search(reader[doc]["text"][start:end]):
            yield root_id
    reader.close()


def pattern(folded: str) -> re.Pattern[str]:
    """Finds a folded text in one that is not folded."""
    return re.compile(r"\s+".join(re.escape(word) for word in folded.split(" ")))


@dataclass(frozen=True, slots=True)
class _Place:
    """A segment that may hold what is looked for, with its tokens."""

    row: int
    sample_id: str
    number: int
    segment: dict[str, Any]
    ids: list[int]
    matched: list[str]

    @classmethod
    def of(cls, sample: Sample, number: int, matched: list[str]) -> _Place:
        segment = sample.segments[number]
        ids = sample.input_ids[segment["start"] : segment["end"]]
        return cls(sample.row, sample.sample_id, number, segment, ids, matched)


def _hits(subject: Subject, matching: pl.DataFrame, folded: str, tokens: Tokens | None) -> Iterator[Hit]:
    wanted = pattern(folded)
    samples = Samples(subject)
    for first in range(0, len(matching), _AT_ONCE):
        rows = matching[first : first + _AT_ONCE].iter_rows()
        found = [_Place.of(samples[row], number, [MATCHED[n] for n in matched]) for row, number, matched in rows]
        origins = Origins(subject, [place.segment for place in found], tokens)
        for place in found:
            hits = (_hit(place, matched, origins, wanted) for matched in place.matched)
            yield from islice((hit for hit in hits if hit is not None), 1)
        origins.close()
    samples.close()


def _hit(place: _Place, matched: str, origins: Origins, wanted: re.Pattern[str]) -> Hit | None:
    """The hit in a segment; None when the text stands in a part of the origin that the sample does not have."""
    segment = place.segment
    document, origin, known = origins.documents.get(segment["doc_id"]), origins.place(segment), None
    start, end, times, exact, text = segment["start"], segment["end"], 1, True, ""
    if origin is not None and document is not None:
        known = origins.text(segment, place.ids)
        text = known.text if known else origins.raw(origin)
    first = last = 0
    if matched == TEXT:
        assert origin is not None
        occurrences = [(match.start(), match.end()) for match in wanted.finditer(text)]
        if not occurrences:
            return None
        times, (first, last) = len(occurrences), occurrences[0]
        shift = known.start if known else origin.start
        inside = known.tokens(shift + first, shift + last) if known else None
        if inside is not None:
            start, end = segment["start"] + inside[0], segment["start"] + inside[1]
        else:
            exact = segment["source_start"] == 0 and bool(segment["chunk_id"] or segment["root_id"])
    return Hit(
        row=place.row,
        sample_id=place.sample_id,
        segment=place.number,
        kind=segment["kind"],
        start=start,
        end=end,
        doc_id=segment["doc_id"],
        source=document.source if document else None,
        title=document.title if document else None,
        matched=matched,
        times=times,
        exact=exact,
        before=text[max(0, first - EXCERPT) : first],
        found=text[first:last],
        after=text[last : last + EXCERPT],
    )
