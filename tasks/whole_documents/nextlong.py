"""NExtLong's arithmetic: meta-chunks, how many negatives each gets, and which of them make a sample
(docs/method.md 3, arXiv 2501.12766).

    k = (T * E * w - S) / (p * s)

T target tokens, E characters per token, w = 1.5, S characters of the document, p its meta-chunks, s their size in
characters. A document is one sample. Where T is small the formula degenerates (k = 0.6 at T = 2,048, S = 6,000 and
E = 3.2), so k >= 3 is required, and two options, both ours, let small samples be made: ``scale`` and ``stretches``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from tasks.samples.spans import Form
from tasks.whole_documents.supply import Most, Stock

SHORT_TARGET = 32_768
"""Shorter samples take s from their length where nothing is said: k would be under 3 at the paper's s. Ours."""
SCALED_SHARE = 16
"""With ``scale`` a meta-chunk is one sixteenth of a sample. Ours."""

_LINE = re.compile(r"[^\n]+")


class NextLongOptions(BaseModel):
    """Options of ``nextlong``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    s: int = Field(2048, ge=1, description="Largest meta-chunk, characters. [paper 3]")
    scale: bool | None = Field(
        None,
        description="Takes s as one sixteenth of a sample's tokens; null: for samples of less than 32,768. [ours 3]",
    )
    w: float = Field(1.5, ge=1, description="Surplus that is planned, as a multiple of the target. [paper 3]")
    characters_per_token: float | None = Field(
        None,
        gt=0,
        description="E of the formula; null: measured on each document, since the paper gives no value. [ours 3]",
    )
    least_negatives: int = Field(
        3, ge=1, description="Least k: a document that leaves room for fewer is left out. [ours 3]"
    )
    stretches: int = Field(
        16,
        ge=0,
        description="Most stretches of whole meta-chunks, each with a sample of its own, that a document is cut into"
        " which is too long for least_negatives; 0 leaves it out. [ours 3]",
    )
    overfetch: float = Field(
        2.0,
        ge=1,
        description="Usable chunks looked up per meta-chunk, as a multiple of k: one that stands in the sample already"
        " makes room for the next. [ours 3]",
    )
    spare: float = Field(
        1.25, ge=1, description="Samples planned per sample wanted: some fall short of the target. [ours 3]"
    )
    seed: int = Field(0, description="Salt of the documents' order. [ours 3]")

    def scaled(self, target: int) -> bool:
        """Whether s follows from the target."""
        return target < SHORT_TARGET if self.scale is None else self.scale


def most_tokens(stock: Stock, form: Form, samples: int, options: NextLongOptions) -> Most:
    """Most tokens of so many samples: a document heads one, or one a stretch."""
    each = max(1, options.stretches)
    return Most(
        stock.documents * each * form.room,
        f", {each} sample{'s' if each > 1 else ''} a document (build.options.stretches)",
    )


@dataclass(frozen=True, slots=True)
class MetaChunk:
    """A row of ``roots`` without its tokens: characters ``[start, end)`` of its document, and how many tokens."""

    row: int
    start: int
    end: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Consecutive meta-chunks that make one sample, and the negatives each gets; under ``least_negatives``: none."""

    pieces: tuple[MetaChunk, ...]
    negatives: int


def group_paragraphs(text: str, s: float) -> list[tuple[int, int]]:
    """Meta-chunks of a text as characters ``[start, end)``: lines, packed greedily up to ``s`` characters.

    A line that is longer stays whole; blank lines begin and end no meta-chunk.
    """
    spans: list[tuple[int, int]] = []
    for found in _LINE.finditer(text):
        if not found.group().strip():
            continue
        start, end = found.span()
        if spans and end - spans[-1][0] <= s:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def meta_chunk_characters(characters: int, tokens: int, target: int, options: NextLongOptions) -> float:
    """Size s of a meta-chunk, characters, for a document of so many characters and tokens."""
    return target / SCALED_SHARE * _encoding(characters, tokens, options) if options.scaled(target) else options.s


def negatives_each(pieces: Sequence[MetaChunk], target: int, options: NextLongOptions) -> int:
    """k = (T * E * w - S) / (p * s) of consecutive meta-chunks, rounded down; below 0 where S exceeds T * E * w."""
    characters = pieces[-1].end - pieces[0].start
    tokens = sum(piece.tokens for piece in pieces)
    s = meta_chunk_characters(characters, tokens, target, options)
    planned = target * _encoding(characters, tokens, options) * options.w
    return int((planned - characters) // (len(pieces) * s))


def plans_of(pieces: Sequence[MetaChunk], target: int, options: NextLongOptions) -> Iterator[Plan]:
    """The samples of a document: one of all its meta-chunks; with ``stretches`` one of as many as k allows, in order.

    A plan whose k is under ``least_negatives`` makes no sample. A plan depends on the meta-chunks from its first on
    alone, so those of a stretch of plans give the same plans again.
    """
    if not options.stretches:
        yield Plan(tuple(pieces), negatives_each(pieces, target, options))
        return
    first = 0
    while first < len(pieces):
        stop = first + 1
        while (
            stop < len(pieces) and negatives_each(pieces[first : stop + 1], target, options) >= options.least_negatives
        ):
            stop += 1
        yield Plan(tuple(pieces[first:stop]), negatives_each(pieces[first:stop], target, options))
        first = stop


def _encoding(characters: int, tokens: int, options: NextLongOptions) -> float:
    """E: characters per token."""
    return options.characters_per_token or characters / max(tokens, 1)
