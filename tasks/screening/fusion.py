"""Neighbours by meaning and by words in one list: reciprocal rank fusion (docs/method.md 2.4).

    merit(chunk) = Σ over the lists that have it of 1 / (k + place)          places from 1

Paper: Cormack, Clarke and Büttcher 2009. Only places count, so the two scores need no common scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from storage.hits import Hit, VectorIndex, WordIndex, stepped
from storage.words import query_words

MERIT_DIGITS = 15
"""Sums that are equal as fractions are equal to so many decimals, and unequal ones are not below some 5,000 places."""


def fused(lists: Sequence[Sequence[int]], k: int) -> list[int]:
    """The chunks of all lists, best merit first, ties by chunk number; a chunk stands in a list once at most."""
    merits: dict[int, float] = {}
    for chunks in lists:
        for place, chunk in enumerate(chunks, start=1):
            merits[chunk] = merits.get(chunk, 0.0) + 1 / (k + place)
    return sorted(merits, key=lambda chunk: (-round(merits[chunk], MERIT_DIGITS), chunk))


class HybridSearch:
    """Searches vectors and words and fuses their answers; a hit's score is its cosine, whichever search found it."""

    def __init__(self, index: VectorIndex, words: WordIndex, k: int) -> None:
        self._index = index
        self._words = words
        self._k = k

    def search(self, texts: Sequence[str], vectors: NDArray[np.float32], top: int) -> list[list[Hit]]:
        """The ``top`` best of the ``top`` nearest chunks and the ``top`` best by words of each query, in fused order;
        ``vectors`` are the texts', float32 [n, d] of unit length.
        """
        nearest = [{hit.chunk: hit for hit in hits} for hits in self._index.search(vectors, top)]
        worded = self._words.search([query_words(text) for text in texts], top)
        chosen = [
            fused([list(near), [hit.chunk for hit in hits]], self._k)[:top]
            for near, hits in zip(nearest, worded, strict=True)
        ]
        return self._scored(nearest, chosen, vectors)

    def _scored(
        self, nearest: Sequence[Mapping[int, Hit]], chosen: Sequence[Sequence[int]], queries: NDArray[np.float32]
    ) -> list[list[Hit]]:
        far = [[chunk for chunk in chunks if chunk not in near] for near, chunks in zip(nearest, chosen, strict=True)]
        wanted = sorted(set(chain.from_iterable(far)))
        places = {chunk: place for place, chunk in enumerate(wanted)}
        vectors = self._index.vectors_of(wanted) if wanted else np.empty((0, queries.shape[1]), np.float32)
        answers = []
        for near, chunks, unknown, query in zip(nearest, chosen, far, queries, strict=True):
            cosines = vectors[[places[chunk] for chunk in unknown]].astype(np.float64) @ query.astype(np.float64)
            scores = {chunk: stepped(float(cosine)) for chunk, cosine in zip(unknown, cosines, strict=True)}
            answers.append([near.get(chunk) or Hit(chunk, scores[chunk]) for chunk in chunks])
        return answers
