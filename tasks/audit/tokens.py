"""Audit of the samples' tokens: each span holds its origin's tokens, and only separators stand between spans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from storage.digests import digest_json
from storage.findings import Finding, failed, not_checkable, passed
from storage.tables import RowReader
from tasks.audit.subject import Subject
from tasks.progress import progress
from tasks.whole_documents.tags import tag_text

Tokenise = Callable[[str], Sequence[int]]
"""A text's tokens when it stands alone, without special tokens."""

ROOT_TOKENS = "every root span holds its root's tokens"
CHUNK_TOKENS = "every context span holds its chunk's tokens"
DOCUMENT_TOKENS = "every document span holds its document's tokens"
TAG_TOKENS = "every tag says of which document and part it is"

_SAMPLES_AT_ONCE = 8


def audit_tokens(subject: Subject, tokenise: Tokenise | None, bos: Sequence[int] = ()) -> Iterator[Finding]:
    """Compares every token of every sample with its origin; ``tokenise`` is ``None`` when the policy is not at hand."""
    origins = _Origins(subject, tokenise)
    rules = _Rules(subject)
    separator = subject.setting("verification", "separator")
    between = list(tokenise(separator)) if tokenise and isinstance(separator, str) else None
    checks: dict[str, list[str]] = {
        "every sample's length and id follow from its tokens": [],
        "every sample is spans with separators between, in order": [],
        **{check: [] for check in rules.checks},
    }
    length, layout = list(checks.values())[:2]
    file = None
    total = sum(subject.manifest.files[name].rows or 0 for name in subject.manifest.names("samples"))
    with progress("comparing tokens", total=total, unit="samples") as advance:
        for path in subject.shards("samples"):
            for sample in _samples(path):
                before = _count(checks)
                length += _wrong_identity(sample)
                layout += _wrong_layout(sample, list(bos), between, may_end_inside=not rules.screened)
                for segment in sample["segments"]:
                    origin = origins.tokens(segment)
                    if origin is not None:
                        checks[rules.tokens_check(segment)] += _wrong_tokens(sample, segment, origin)
                        checks[rules.cut_check] += rules.wrong_cut(sample, segment, len(origin))
                file = file or (path.relative_to(subject.home.path).as_posix() if _count(checks) > before else None)
                advance(1)
    for check, problems in checks.items():
        if problems:
            yield failed(check, f"{len(problems)} wrong, the first: {problems[0]}", file)
        elif check in rules.checks and check != ROOT_TOKENS and not origins.at_hand:
            yield not_checkable(check, "corpus or tokenizer is not at hand")
        else:
            yield passed(check)


class _Rules:
    """Which checks a version's spans undergo, and where its recipe may cut them.

    Where a policy screened, negatives and fillers are cut at their front and positives not at all; elsewhere what ends
    a sample is cut there, and parts of documents end where they end.
    """

    def __init__(self, subject: Subject) -> None:
        self.screened = subject.has("verdicts")
        self._whole_documents = not subject.has("roots")
        self.cut_check = "contexts are cut at their front only" if self.screened else "only what ends a sample is cut"
        spans = (DOCUMENT_TOKENS, TAG_TOKENS) if self._whole_documents else (ROOT_TOKENS, CHUNK_TOKENS)
        self.checks = (*spans, self.cut_check)
        self._parts = bool(subject.manifest.tokens.get("tag"))

    def tokens_check(self, segment: dict[str, Any]) -> str:
        """The check that a span's tokens fall under."""
        kind = segment["kind"]
        if self._whole_documents:
            return TAG_TOKENS if kind == "tag" else DOCUMENT_TOKENS
        return ROOT_TOKENS if kind == "root" else CHUNK_TOKENS

    def wrong_cut(self, sample: dict[str, Any], segment: dict[str, Any], origin: int) -> list[str]:
        """What is wrong with a span's borders, given its origin's tokens."""
        kind, first = segment["kind"], _first(segment)
        at_front = first > 0
        at_end = first + segment["end"] - segment["start"] < origin
        last = segment["end"] == sample["segments"][-1]["end"]
        if kind == "document":
            wrong = at_end and not last and not self._parts
        elif kind == "root":
            wrong = False  # roots have a check of their own, which needs no tokenizer
        elif self.screened:
            wrong = at_end or (at_front and kind == "positive")
        else:
            wrong = at_front or (at_end and not last)
        return [f"{_where(sample, segment)} are not all of their origin's"] if wrong else []


class _Origins:
    """Tokens of roots, chunks and documents by their digests, and of tags."""

    def __init__(self, subject: Subject, tokenise: Tokenise | None) -> None:
        self.at_hand = subject.corpus is not None and tokenise is not None
        self._tokenise = tokenise
        self._chunks: dict[str, int] = {}
        self._documents: dict[str, int] = {}
        if subject.corpus is not None and tokenise is not None:
            path, spans = subject.home.path, subject.table("samples").select(pl.col("segments").explode())
            used = spans.select(pl.col("segments").struct.field("chunk_id")).unique()
            self._chunks = _numbers(subject.chunks().select("chunk_id", "chunk"), used)
            texts = RowReader(path, subject.corpus.chunks, ["text"])
            self.chunk = lru_cache(maxsize=65_536)(lambda key: list(tokenise(texts[self._chunks[key]]["text"])))
            whole = pl.col("segments").struct.field("kind") == "document"
            used = spans.filter(whole).select(pl.col("segments").struct.field("doc_id")).unique()
            self._documents = _numbers(subject.documents().select("doc_id", "doc"), used)
            books = RowReader(path, subject.corpus.documents, ["text"], kept_bytes=2**27)
            self.document = lru_cache(maxsize=64)(lambda key: list(tokenise(books[self._documents[key]]["text"])))
        placed = subject.table("samples").select(pl.col("segments").explode().struct.field("root_id")).unique()
        table = subject.table("roots").join(placed, on="root_id", how="semi").select("root_id", "input_ids").collect()
        self._roots = table
        self._root_rows = {key: row for row, key in enumerate(table["root_id"])}

    def tokens(self, segment: dict[str, Any]) -> Sequence[int] | None:
        """The whole origin's tokens, or ``None`` when it can't be known."""
        kind = segment["kind"]
        if kind == "root":
            row = self._root_rows.get(segment["root_id"])
            return None if row is None else self._roots["input_ids"][row].to_list()
        if kind == "document":
            return self.document(segment["doc_id"]) if segment["doc_id"] in self._documents else None
        if kind == "tag":
            text = tag_text(segment["doc_id"], segment["source_start"])
            return None if self._tokenise is None else self._tokenise(text)
        return self.chunk(segment["chunk_id"]) if segment["chunk_id"] in self._chunks else None


def _numbers(rows: pl.LazyFrame, used: pl.LazyFrame) -> dict[str, int]:
    """{digest: row} of those that are used; ``rows`` has the digest first, ``used`` the same column."""
    digest, number = rows.collect_schema().names()
    found = rows.join(used, on=digest, how="semi").collect()
    return dict(zip(found[digest].to_list(), found[number].to_list(), strict=True))


def _samples(path: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_SAMPLES_AT_ONCE):
            yield from batch.to_pylist()


def _wrong_identity(sample: dict[str, Any]) -> list[str]:
    name, ids = sample["sample_id"], sample["input_ids"]
    if sample["length"] != len(ids):
        return [f"sample {name[:12]} says {sample['length']} tokens and has {len(ids)}"]
    if digest_json([ids, sample["segments"]]) != name:
        return [f"sample {name[:12]} has another digest"]
    return []


def _wrong_layout(
    sample: dict[str, Any], bos: list[int], separator: list[int] | None, *, may_end_inside: bool
) -> list[str]:
    """BOS, span, separator, span, … span; without a tokenizer the first gap has to be everywhere.

    With ``may_end_inside`` the last span may be followed by a separator or the beginning of one.
    """
    ids, end = sample["input_ids"], None
    for segment in sample["segments"]:
        start = segment["start"]
        gap = ids[end:start] if end is not None else ids[:start]
        if end is None:
            expected = bos if separator is not None else gap
        else:
            separator = expected = gap if separator is None else separator
        if gap != expected or start >= segment["end"] or (end is not None and start < end):
            return [f"sample {sample['sample_id'][:12]}: before token {start} stands {gap}, expected {expected}"]
        end = segment["end"]
    rest = ids[end:] if end is not None else ids
    if rest and not (may_end_inside and separator is not None and rest == separator[: len(rest)]):
        return [f"sample {sample['sample_id'][:12]} has {len(ids)} tokens, its last span ends at {end}"]
    return []


def _wrong_tokens(sample: dict[str, Any], segment: dict[str, Any], origin: Sequence[int]) -> list[str]:
    first, length = _first(segment), segment["end"] - segment["start"]
    if first < 0 or sample["input_ids"][segment["start"] : segment["end"]] != list(origin[first : first + length]):
        return [f"{_where(sample, segment)} are not those of their origin"]
    return []


def _first(segment: dict[str, Any]) -> int:
    """The first token taken from the origin; a tag's ``source_start`` is its part's number, and it starts at 0."""
    return 0 if segment["kind"] == "tag" else int(segment["source_start"])


def _where(sample: dict[str, Any], segment: dict[str, Any]) -> str:
    return f"sample {sample['sample_id'][:12]}, tokens {segment['start']} to {segment['end']} ({segment['kind']})"


def _count(checks: dict[str, list[str]]) -> int:
    return sum(map(len, checks.values()))
