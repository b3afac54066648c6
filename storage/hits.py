"""What a vector search answers, and the one order that every engine's answer is brought into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

SCORE_STEP = 1e-6
"""Scores are compared in steps of this size, so that the last bits of an engine's arithmetic decide nothing. Ours."""

SPARE = 16
"""Neighbours asked for beyond the wanted ones, to see whether a tie goes past the cut."""


class Hit(NamedTuple):
    """One neighbour: the chunk's row and its cosine, a multiple of ``SCORE_STEP``."""

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


Fetch = Callable[[NDArray[np.float32], int], Sequence[Sequence[tuple[int, float]]]]


def ordered_search(fetch: Fetch, queries: NDArray[np.float32], top: int, total: int) -> list[list[Hit]]:
    """The ``top`` best of each query in the order (-score, chunk), whatever order the engine gives equals.

    ``fetch(queries, limit)`` is the engine's search. When a tie reaches past what was fetched, that query is asked
    again for twice as many, so chunks with equal vectors are chosen by number and not by the engine's mood.
    """
    answers: list[list[Hit]] = [[] for _ in queries]
    pending, limit = list(range(len(queries))), min(top + SPARE, total)
    while pending and top > 0 and limit > 0:
        undecided = []
        for query, found in zip(pending, fetch(queries[pending], limit), strict=True):
            hits = sorted(
                (Hit(chunk, _stepped(score)) for chunk, score in found), key=lambda hit: (-hit.score, hit.chunk)
            )
            answers[query] = hits[:top]
            if limit < total and len(hits) > top and hits[-1].score == hits[top - 1].score:
                undecided.append(query)
        pending, limit = undecided, min(limit * 2, total)
    return answers


def _stepped(score: float) -> float:
    return round(round(score / SCORE_STEP) * SCORE_STEP, 6)
