"""Where a sample's segments come from: the document, its characters, and the characters of every token.

Chunks, roots and documents are tokenised alone, as they were for the sample; offsets are believed only where that gives
the sample's tokens again.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import polars as pl
from tokenizers import Tokenizer

from storage.errors import PolicyError
from storage.home import Home
from storage.policies import policy_folder
from storage.tables import RowReader
from tasks.audit.subject import Subject

_AS_THEY_STAND = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Classes whose ``tokenizer.json`` is all there is to them (see ``models.policy.load_tokenizer``): read directly, they
cost no import of torch."""
Segment = Mapping[str, Any]
Offsets = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Tokens:
    """A tokenizer: a text's ids with the characters ``[start, end)`` of each, and the text of ids."""

    encode: Callable[[str], tuple[Sequence[int], Offsets]]
    decode: Callable[[Sequence[int]], str]


def tokens_of(home: Home, policy: str) -> Tokens:
    """A policy's tokenizer, special tokens neither added nor left out.

    Raises ``PolicyError`` when the policy is not in this home, or its tokenizer can't be read or gives no offsets.
    """
    folder = policy_folder(home, policy, weights=False)
    plain, config = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if plain.is_file() and config.is_file():
        try:
            if json.loads(config.read_bytes()).get("tokenizer_class") in _AS_THEY_STAND:
                return _of_backend(Tokenizer.from_file(str(plain)))
        except Exception as error:  # the tokenizers library raises Exception itself for damaged files
            problem = " ".join(str(error).split())[:200]
            raise PolicyError(f"the tokenizer in {folder} can't be read: {problem}.") from error
    from transformers import PreTrainedTokenizerFast

    from models.policy import load_tokenizer

    tokenizer = load_tokenizer(folder)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise PolicyError(f"the tokenizer in {folder} gives no character offsets.")
    return _of_backend(tokenizer.backend_tokenizer)


def _of_backend(tokenizer: Tokenizer) -> Tokens:
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(text: str) -> tuple[Sequence[int], Offsets]:
        found = tokenizer.encode(text, add_special_tokens=False)
        return found.ids, found.offsets

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=False))

    return Tokens(encode, decode)


@dataclass(frozen=True, slots=True)
class Document:
    """A document's row in the corpus and what it is called."""

    doc: int
    source: str
    title: str
    part: str


@dataclass(frozen=True, slots=True)
class Place:
    """Row of a chunk or root in its table, row of its document, and its characters ``[start, end)`` there."""

    row: int
    doc: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Text:
    """A segment's text: characters from ``start`` of its document, and the characters of each of its tokens."""

    start: int
    text: str
    offsets: Offsets

    def characters(self, first: int, stop: int) -> tuple[int, int]:
        """Characters ``[start, end)`` in the document of the segment's tokens ``[first, stop)``, counted from 0."""
        spans = self.offsets[first:stop]
        return min(start for start, _ in spans), max(end for _, end in spans)

    def tokens(self, start: int, end: int) -> tuple[int, int] | None:
        """The segment's tokens ``[first, stop)`` that share characters ``[start, end)`` of the document, or None."""
        first = bisect_right(self.offsets, start, key=lambda span: span[1])
        stop = bisect_left(self.offsets, end, key=lambda span: span[0])
        return (first, stop) if first < stop else None

    def between(self, start: int, end: int) -> str:
        """Characters ``[start, end)`` of the document as far as the segment has them."""
        return self.text[max(start - self.start, 0) : max(end - self.start, 0)]


class Origins:
    """Documents, places and texts of segments; ``tokens`` is ``None`` when the tokenizer is not at hand."""

    def __init__(self, subject: Subject, segments: Iterable[Segment], tokens: Tokens | None) -> None:
        wanted = list(segments)
        self._tokens = tokens
        self.roots = _root_places(subject, {s["root_id"] for s in wanted if s["root_id"]})
        self.chunks: dict[str, Place] = {}
        self.documents: dict[str, Document] = {}
        self._reader: RowReader | None = None
        if subject.corpus is not None:
            self.chunks = _chunk_places(subject, {s["chunk_id"] for s in wanted if s["chunk_id"]})
            self.documents = _documents(subject, {s["doc_id"] for s in wanted})
            self._reader = RowReader(subject.home.path, subject.corpus.documents, ["text"], kept_bytes=2**26)
        self._whole = lru_cache(maxsize=4)(self._read)
        self._encoded = lru_cache(maxsize=256)(self._encode)

    def place(self, segment: Segment) -> Place | None:
        """Where the segment's chunk, root or document stands; None for a tag and for what is not known here."""
        if segment["kind"] == "tag":
            return None
        if segment["chunk_id"]:
            return self.chunks.get(segment["chunk_id"])
        if segment["root_id"]:
            return self.roots.get(segment["root_id"])
        found = self.documents.get(segment["doc_id"])
        return Place(found.doc, found.doc, 0, len(self._whole(found.doc))) if found and self._reader else None

    def text(self, segment: Segment, ids: Sequence[int]) -> Text | None:
        """The text of a segment that holds ``ids``; None when corpus or tokenizer are not at hand or give others."""
        place = self.place(segment)
        if place is None or self._reader is None or self._tokens is None or not ids:
            return None
        found, offsets = self._encoded(place.doc, place.start, place.end)
        first = segment["source_start"]
        if list(found[first : first + len(ids)]) != list(ids):
            return None
        own = [(place.start + start, place.start + end) for start, end in offsets[first : first + len(ids)]]
        start, end = own[0][0], max(end for _, end in own)
        return Text(start, self._whole(place.doc)[start:end], own)

    def raw(self, place: Place) -> str:
        """The characters of a place."""
        return self._whole(place.doc)[place.start : place.end]

    def _read(self, doc: int) -> str:
        assert self._reader is not None
        return str(self._reader[doc]["text"])

    def _encode(self, doc: int, start: int, end: int) -> tuple[Sequence[int], Offsets]:
        assert self._tokens is not None
        return self._tokens.encode(self._whole(doc)[start:end])

    def close(self) -> None:
        """Closes the documents."""
        if self._reader is not None:
            self._reader.close()


def _root_places(subject: Subject, ids: set[str]) -> dict[str, Place]:
    if not ids:
        return {}
    roots = subject.table("roots").filter(pl.col("root_id").is_in(list(ids)))
    found = roots.select("root_id", "root", "doc", "char_start", "char_end").collect(engine="streaming")
    return {key: Place(*rest) for key, *rest in found.iter_rows()}


def _chunk_places(subject: Subject, ids: set[str]) -> dict[str, Place]:
    if not ids:
        return {}
    chunks = subject.chunks().filter(pl.col("chunk_id").is_in(list(ids)))
    found = chunks.select("chunk_id", "chunk", "doc", "char_start", "char_end").collect(engine="streaming")
    return {key: Place(*rest) for key, *rest in found.iter_rows()}


def _documents(subject: Subject, ids: set[str]) -> dict[str, Document]:
    documents = subject.documents().filter(pl.col("doc_id").is_in(list(ids)))
    found = documents.select("doc_id", "doc", "source", "title", "part").collect(engine="streaming")
    return {key: Document(*rest) for key, *rest in found.iter_rows()}
