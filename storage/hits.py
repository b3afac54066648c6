"""What a search of vectors or words answers, and the one order that every engine's answer is brought into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from storage.words import SparseRow

SCORE_STEP = 1e-6
"""Scores are compared in steps of this size, so that the last bits of an engine's arithmetic decide nothing. Ours."""

SPARE = 16
"""Neighbours asked for beyond the wanted ones, to see whether a tie goes past the cut."""


class Hit(NamedTuple):
    """One neighbour: the chunk's row and its cosine (in a search of words: its BM25), a multiple of ``SCORE_STEP``."""

    chunk: int
    score: float


class VectorIndex(Protocol):
    """Chunk vectors that can be searched; made and opened by ``storage.vectors.ensure_index``."""

    def load(self, ids: NDArray[np.integer], vectors: NDArray[np.float32]) -> None:
        """Adds unit vectors ``[n, d]`` under the chunk numbers ``ids`` ``[n]``; a number that is there is replaced."""

    def count(self) -> int:
        """Vectors in the index."""

    def search(self, queries: NDArray[np.float32], top: int) -> list[list[Hit]]:
        """The ``top`` nearest chunks of each query ``[n, d]`` (unit length), sorted by (-score, chunk)."""

    def vectors_of(self, ids: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float32]:
        """The vectors ``[n, d]`` of these chunks in this order; raises ``IntegrityError`` when one is missing."""

    def close(self) -> None:
        """Gives the index and its lock back; may be called twice."""


class WordIndex(Protocol):
    """Words of chunks that can be searched; made and opened by ``storage.word_index.ensure_words``."""

    def load(self, ids: Sequence[int], rows: Sequence[SparseRow]) -> None:
        """Adds the rows of these chunks; a chunk that is there is replaced."""

    def count(self) -> int:
        """Chunks in the index, those without a word among them."""

    def search(self, queries: Sequence[Sequence[int]], top: int) -> list[list[Hit]]:
        """The ``top`` chunks with the largest sum of weights of each query's words, sorted by (-score, chunk); chunks
        that share no word with it are left out.
        """

    def close(self) -> None:
        """Gives the index and its lock back; may be called twice."""


Fetch = Callable[[NDArray[Any], int], Sequence[Sequence[tuple[int, float]]]]


def ordered_search(fetch: Fetch, queries: NDArray[Any], top: int, total: int) -> list[list[Hit]]:
    """The ``top`` best of each query in the order (-score, chunk), whatever order the engine gives equals.

    ``fetch(queries, limit)`` is the engine's search; it may answer fewer than ``limit`` where there are no more. When a
    tie reaches past what was fetched, that query is asked again for twice as many, so chunks with equal vectors are
    chosen by number and not by the engine's mood.
    """
    answers: list[list[Hit]] = [[] for _ in queries]
    pending, limit = list(range(len(queries))), min(top + SPARE, total)
    while pending and top > 0 and limit > 0:
        undecided = []
        for query, found in zip(pending, fetch(queries[pending], limit), strict=True):
            hits = sorted(
                (Hit(chunk, stepped(score)) for chunk, score in found), key=lambda hit: (-hit.score, hit.chunk)
            )
            answers[query] = hits[:top]
            if len(hits) == limit < total and limit > top and hits[-1].score == hits[top - 1].score:
                undecided.append(query)
        pending, limit = undecided, min(limit * 2, total)
    return answers


def ordered_word_search(
    fetch: Fetch, queries: Sequence[Sequence[int]], top: int, total: int, *, batch: int
) -> list[list[Hit]]:
    """``ordered_search`` of queries of words, ``batch`` at a time; a query without a word finds nothing."""
    answers: list[list[Hit]] = [[] for _ in queries]
    asked = [query for query, words in enumerate(queries) if words]
    for start in range(0, len(asked), batch):
        part = asked[start : start + batch]
        lists = np.empty(len(part), object)
        for place, query in enumerate(part):
            lists[place] = list(queries[query])
        for query, hits in zip(part, ordered_search(fetch, lists, top, total), strict=True):
            answers[query] = hits
    return answers


def stepped(score: float) -> float:
    """A score as the multiple of ``SCORE_STEP`` that is nearest."""
    return round(round(score / SCORE_STEP) * SCORE_STEP, 6)
