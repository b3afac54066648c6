"""Documents into chunks that fit: at most ``max_tokens`` of the policy's tokens, and no more than the embedder reads.

A chunk ends at the highest border (paragraph, line, sentence, word, character) that fills at least half of it; so a
heading stays with its text and a paragraph is cut only where it must be. The document is tokenised once to see where
that is; then every chunk is tokenised alone, as it will be in screening, and shortened when it is too long there.
Chunks follow each other without a gap but white space.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

CHARACTERS_PER_BLOCK = 100_000
"""A long document is tokenised in blocks of this size; the counts guide the cuts only."""
LARGEST = 512
"""Largest chunk where nothing is said, tokens: its share of a screening context of 2K (docs/method.md 2.5)."""
SEPARATING = 8
"""Left free of a policy's context for separator and BOS where nothing is said, tokens: chunk, separator and three times
as much root fit. Ours."""
_BORDERS = (
    re.compile(r"\n\s*\n"),
    re.compile(r"\n"),
    re.compile(r"[.!?。！？][\"'”’)\]]*\s+|[。！？]"),
    re.compile(r"\s+"),
)
_BLACK = re.compile(r"\S")


class ChunkingConfig(BaseModel):
    """How documents are cut."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int | None = Field(
        None,
        ge=8,
        description="Largest chunk, tokens of the policy; null: a quarter of the policy's own context, less 8"
        " for separator and BOS, at most 512. [ours 2.5]",
    )
    min_tokens: int = Field(16, ge=1, description="A smaller piece is left out and counted. Tokens. [ours 2.4]")
    min_fill: float = Field(
        0.5, ge=0, le=1, description="A border is good enough when this share is filled. [ours 2.4]"
    )
    tokenizer: str = Field(
        "embedded:quickstart",
        description="The policy whose tokens are counted: embedded:quickstart, a folder, or a hub id. [ours 2.7]",
    )

    @model_validator(mode="after")
    def _pieces_can_be_chunks(self) -> ChunkingConfig:
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens {self.min_tokens} is over max_tokens {self.max_tokens}")
        return self

    def fitted(self, context: int) -> ChunkingConfig:
        """The same with its largest chunk decided, for a policy whose own context is ``context`` tokens."""
        if self.max_tokens is not None:
            return self
        return self.model_copy(update={"max_tokens": max(self.min_tokens, min(LARGEST, context // 4 - SEPARATING))})


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a document: characters [start, end), and its tokens when tokenised alone."""

    start: int
    end: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Tokenizing:
    """What the chunker needs to know of a tokenizer: token ids counted, and where each token starts in the text."""

    count: Callable[[str], int]
    starts: Callable[[str], Sequence[int]]


Lengths = Callable[[Sequence[str]], Sequence[int]]


class Chunker:
    """Cuts texts; ``pieces(texts)`` are the embedder's word pieces and ``limit`` how many it reads."""

    def __init__(self, tokenizing: Tokenizing, pieces: Lengths, limit: int, config: ChunkingConfig) -> None:
        self._tokenizing = tokenizing
        self._pieces = pieces
        self._limit = limit
        self._config = config.fitted(4 * (LARGEST + SEPARATING))
        self._most = self._config.max_tokens or LARGEST

    def spans(self, text: str) -> list[Span]:
        """All pieces of a text in order, those under ``min_tokens`` included."""
        starts = self._token_starts(text)
        borders = [np.array([found.end() for found in pattern.finditer(text)], dtype=np.int64) for pattern in _BORDERS]
        cut = _Cutter(text, starts, borders, self._tokenizing.count, self._config.min_fill)
        spans = list(cut.spans(0, len(text), self._most))
        return self._fitting(text, spans, cut)

    def _fitting(self, text: str, spans: list[Span], cut: _Cutter) -> list[Span]:
        """The same spans, those that the embedder would cut off divided further."""
        lengths = self._pieces([text[span.start : span.end] for span in spans])
        if max(lengths, default=0) <= self._limit:
            return spans
        fitting: list[Span] = []
        for span, length in zip(spans, lengths, strict=True):
            if length <= self._limit or span.end - span.start <= 1:
                fitting.append(span)
                continue
            budget = max(1, min(span.tokens - 1, int(span.tokens * self._limit / length * 0.9)))
            smaller = list(cut.spans(span.start, span.end, budget))
            fitting += self._fitting(text, smaller, cut) if len(smaller) > 1 else self._halves(text, span, cut)
        return fitting

    def _halves(self, text: str, span: Span, cut: _Cutter) -> list[Span]:
        middle = (span.start + span.end) // 2
        budget = self._most
        halves = [*cut.spans(span.start, middle, budget), *cut.spans(middle, span.end, budget)]
        return self._fitting(text, halves, cut)

    def _token_starts(self, text: str) -> NDArray[np.int64]:
        parts = [np.asarray(self._tokenizing.starts(text[a:b]), dtype=np.int64) + a for a, b in pairwise(_blocks(text))]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


class _Cutter:
    def __init__(
        self,
        text: str,
        starts: NDArray[np.int64],
        borders: Sequence[NDArray[np.int64]],
        count: Callable[[str], int],
        min_fill: float,
    ) -> None:
        self._text = text
        self._starts = starts
        self._borders = borders
        self._count = count
        self._min_fill = min_fill

    def spans(self, start: int, end: int, budget: int) -> Iterator[Span]:
        """Consecutive spans of [start, end) of at most ``budget`` tokens each."""
        while True:
            start = self._skip_blank(start, end)
            if start >= end:
                return
            span = self._next(start, end, budget)
            if span.end == span.start:
                # Indentation longer than a whole chunk: it is white space between chunks then.
                span = self._next(self._past_blank(start, end), end, budget)
            yield span
            start = span.end

    def span(self, start: int, end: int) -> Span:
        """The span without blank at its ends, with its tokens."""
        start = min(self._skip_blank(start, end), end)
        end = start + len(self._text[start:end].rstrip())
        return Span(start, end, self._count(self._text[start:end]))

    def _next(self, start: int, end: int, budget: int) -> Span:
        allowed = budget
        while True:
            span = self.span(start, self._cut(start, end, allowed))
            if span.tokens <= budget or span.end - span.start <= 1:
                return span
            # Alone it has more tokens than as a part of the document.
            allowed = min(allowed - (span.tokens - budget), self._between(start, span.end) - 1)
            if allowed < 1:
                return self._shrunk(span, budget)

    def _shrunk(self, span: Span, budget: int) -> Span:
        """The longest beginning of a span that fits when no count of the document's helps, by halving."""
        fits, too_long = span.start + 1, span.end
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if self.span(span.start, middle).tokens <= budget:
                fits = middle
            else:
                too_long = middle
        return self.span(span.start, fits)

    def _between(self, start: int, end: int) -> int:
        """Tokens of the document that start in [start, end)."""
        return int(np.searchsorted(self._starts, end) - np.searchsorted(self._starts, start))

    def _cut(self, start: int, end: int, allowed: int) -> int:
        first = int(np.searchsorted(self._starts, start))
        last = first + allowed
        furthest = min(int(self._starts[last]) if last < len(self._starts) else end, end)
        if furthest >= end:
            return end
        for borders in self._borders:
            at = int(np.searchsorted(borders, furthest, side="right")) - 1
            if at >= 0 and borders[at] > start and self._between(start, int(borders[at])) >= self._min_fill * allowed:
                return int(borders[at])
        return max(furthest, start + 1)

    def _skip_blank(self, start: int, end: int) -> int:
        """Past the white space, but not past the indentation of the line that follows."""
        first = self._past_blank(start, end)
        if first == end:
            return end
        line = self._text.rfind("\n", start, first) + 1
        at_line = start == 0 or self._text[start - 1] == "\n"
        return line or (start if at_line else first)

    def _past_blank(self, start: int, end: int) -> int:
        found = _BLACK.search(self._text, start, end)
        return found.start() if found else end


def _blocks(text: str) -> list[int]:
    """Places to divide a long text at, 0 and its length included, after a line end or blank where there is one near."""
    places = [0]
    while len(text) - places[-1] > CHARACTERS_PER_BLOCK:
        limit = places[-1] + CHARACTERS_PER_BLOCK
        cut = text.rfind("\n", limit - 5_000, limit) + 1 or text.rfind(" ", limit - 5_000, limit) + 1 or limit
        places.append(cut)
    return [*places, len(text)]
