"""The server engine's words: sparse vectors in a collection of their own, beside that of the vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from storage.hits import Hit, ordered_word_search
from storage.server_collection import ServerCollection, ServerSettings
from storage.words import SparseRow
from storage.words_edge import WORDS

QUERIES_PER_REQUEST = 64


class ServerWords(ServerCollection):
    """A ``WordIndex`` over one collection of a server; any ``QdrantClient`` serves, also one in memory."""

    def __init__(self, client: QdrantClient, name: str, settings: ServerSettings) -> None:
        super().__init__(client, name, settings)

    def create(self) -> None:
        """Makes the collection when it is not there; refuses one that holds no words."""
        params = self.make({}, sparse={WORDS: models.SparseVectorParams()}).config.params
        if WORDS not in (params.sparse_vectors or {}):
            raise self.foreign("holds no words")

    def load(self, ids: Sequence[int], rows: Sequence[SparseRow]) -> None:
        """See ``WordIndex``."""
        for start in range(0, len(ids), self._settings.batch):
            part = slice(start, start + self._settings.batch)
            vectors = [models.SparseVector(indices=row.numbers, values=row.weights) for row in rows[part]]
            batch = models.Batch(ids=list(ids[part]), vectors={WORDS: vectors})
            self.call(lambda batch=batch: self._client.upsert(self._name, points=batch, wait=True))  # type: ignore[misc]

    def search(self, queries: Sequence[Sequence[int]], top: int) -> list[list[Hit]]:
        """See ``WordIndex``."""
        return ordered_word_search(self._fetch, queries, top, self.count(), batch=QUERIES_PER_REQUEST)

    def _fetch(self, queries: NDArray[np.object_], limit: int) -> list[list[tuple[int, float]]]:
        requests = [
            models.QueryRequest(
                query=models.SparseVector(indices=words, values=[1.0] * len(words)),
                using=WORDS,
                limit=limit,
                with_payload=False,
            )
            for words in queries
        ]
        return [[(chunk, score) for chunk, score in points if score > 0] for points in self.query(requests)]
