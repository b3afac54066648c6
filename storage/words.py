"""The words of a chunk and what each is worth: BM25 weights that every engine adds up to the same bits (docs/method.md
2.4).

    w(word, chunk) = ln(1 + (N - n + 0.5) / (n + 0.5)) · f (k1 + 1) / (f + k1 (1 - b + b · length / average))

N chunks of which n have the word, f times in this one; length and average in words. A query's score is the sum over
its distinct words. Paper: Robertson and Zaragoza 2009, with the logarithm that is never negative, as in Lucene.

The whole weight is stored, not left to an engine's own document frequencies: the embedded engine leaves chunks without
a word out of N, the client's in-memory engine does not (measured), and a server would count each of its shards apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

RULE = 1
"""Raised when ``word_numbers`` or a weight changes for the same text; the step that searches is raised with it."""

WEIGHT_STEP = 2.0**-10
"""Weights are multiples of this, so sums below 2**14 are exact in float32, whatever order they are added in. Ours."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Bm25:
    """How soon a repeated word says nothing new (``k1``), and how much a long chunk is held back (``b``)."""

    k1: float
    b: float


class SparseRow(NamedTuple):
    """Words of a chunk, ascending, and the weight of each; a word without weight is left out."""

    numbers: list[int]
    weights: list[float]


def word_numbers(text: str) -> list[int]:
    """Every word of a text in order, as the CRC-32 of its UTF-8.

    A word is a longest run of letters, digits and underscores as Unicode has them (``\\w``), in lower case. Two words
    may share a number, as one pair in 2**32 does; they then count as one word.
    """
    return [crc32(word.encode("utf-8")) for word in _WORD.findall(text.lower())]


def query_words(text: str) -> list[int]:
    """The distinct words of a query, ascending."""
    return sorted(set(word_numbers(text)))


@dataclass(frozen=True, slots=True)
class WordCounts:
    """What BM25 knows of a whole corpus; 12 bytes a distinct word."""

    chunks: int
    length: int
    """Words in all."""
    numbers: NDArray[np.uint32]
    """Distinct words, ascending."""
    holders: NDArray[np.int64]
    """Chunks that have each of them."""

    def rows(self, texts: Sequence[str], bm25: Bm25) -> list[SparseRow]:
        """The stored row of each chunk; the chunks must be among those that were counted."""
        found = _occurrences(texts)
        holders = self.holders[np.searchsorted(self.numbers, found.numbers)]
        rarity = np.log(1 + (self.chunks - holders + 0.5) / (holders + 0.5))
        share = (1 - bm25.b) + bm25.b * found.lengths[found.texts] / (self.length / self.chunks)
        weights = rarity * found.times * (bm25.k1 + 1) / (found.times + bm25.k1 * share)
        steps = np.round(weights / WEIGHT_STEP)
        kept = steps > 0
        numbers, values = found.numbers[kept], steps[kept] * WEIGHT_STEP
        ends = np.searchsorted(found.texts[kept], np.arange(len(texts) + 1))
        return [
            SparseRow(numbers[start:end].tolist(), values[start:end].tolist()) for start, end in pairwise(ends.tolist())
        ]


class _Part(NamedTuple):
    numbers: NDArray[np.uint32]
    holders: NDArray[np.int64]


class _Occurrences(NamedTuple):
    """Distinct (text, word) pairs, ascending, and how often each stands there; words of each text."""

    texts: NDArray[np.int64]
    numbers: NDArray[np.uint32]
    times: NDArray[np.int64]
    lengths: NDArray[np.int64]


def word_counts(batches: Iterable[Sequence[str]]) -> WordCounts:
    """Counts the chunks of a corpus; memory holds a batch and the distinct words, not the texts."""
    chunks = length = 0
    # Each part has more than twice the words of the one after it, so a word is merged a logarithm of times.
    parts = [_Part(np.empty(0, np.uint32), np.empty(0, np.int64))]
    for texts in batches:
        found = _occurrences(texts)
        chunks += len(texts)
        length += int(found.lengths.sum())
        numbers, holders = np.unique(found.numbers, return_counts=True)
        parts.append(_Part(numbers, holders.astype(np.int64)))
        while len(parts) > 1 and len(parts[-2].numbers) <= 2 * len(parts[-1].numbers):
            parts.append(_merged([parts.pop(), parts.pop()]))
    return WordCounts(chunks, length, *_merged(parts))


def _merged(parts: Sequence[_Part]) -> _Part:
    numbers, places = np.unique(np.concatenate([part.numbers for part in parts]), return_inverse=True)
    holders = np.zeros(len(numbers), np.int64)
    np.add.at(holders, places, np.concatenate([part.holders for part in parts]))
    return _Part(numbers, holders)


def _occurrences(texts: Sequence[str]) -> _Occurrences:
    words = [word_numbers(text) for text in texts]
    lengths = np.array([len(found) for found in words], np.int64)
    numbers = np.fromiter(chain.from_iterable(words), np.uint64, count=int(lengths.sum()))
    places = np.repeat(np.arange(len(texts), dtype=np.uint64), lengths)
    pairs, times = np.unique(places << np.uint64(32) | numbers, return_counts=True)
    return _Occurrences(
        (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(2**32 - 1)).astype(np.uint32), times, lengths
    )
