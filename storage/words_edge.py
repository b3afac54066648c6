"""The embedded engine's words: sparse vectors in a folder of their own, beside that of the vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from storage.edge_collection import EdgeCollection
from storage.hits import Hit, ordered_word_search
from storage.words import SparseRow

WORDS = "words"
"""Name of the sparse vector."""
QUERIES_PER_BATCH = 256
POINTS_PER_BATCH = 4096


class EdgeWords(EdgeCollection):
    """A ``WordIndex`` over one folder; holds the lock of the folder until it is closed."""

    def __init__(self, folder: Path) -> None:
        sparse = {WORDS: edge.EdgeSparseVectorParams()}
        super().__init__(folder, edge.EdgeConfig(vectors={}, sparse_vectors=sparse, wal_enabled=False))

    def load(self, ids: Sequence[int], rows: Sequence[SparseRow]) -> None:
        """See ``WordIndex``."""
        for start in range(0, len(ids), POINTS_PER_BATCH):
            part = slice(start, start + POINTS_PER_BATCH)
            points = [
                edge.Point(chunk, {WORDS: edge.SparseVector(row.numbers, row.weights)})
                for chunk, row in zip(ids[part], rows[part], strict=True)
            ]
            self.check_room()
            self._shard.update(edge.UpdateOperation.upsert_points(points))

    def finish(self) -> None:
        """Makes what was loaded durable, in files that are mapped instead of read into memory."""
        self._shard.optimize()
        super().finish()

    def search(self, queries: Sequence[Sequence[int]], top: int) -> list[list[Hit]]:
        """See ``WordIndex``."""
        return ordered_word_search(self._fetch, queries, top, self.count(), batch=QUERIES_PER_BATCH)

    def _fetch(self, queries: NDArray[np.object_], limit: int) -> list[list[tuple[int, float]]]:
        requests = [
            edge.QueryRequest(
                limit=limit,
                query=edge.Query.Nearest(edge.SparseVector(words, [1.0] * len(words)), using=WORDS),
                with_payload=False,
            )
            for words in queries
        ]
        found = self._shard.query_batch(edge.QueryBatchRequest(requests))
        return [[(int(str(point.id)), point.score) for point in points if point.score > 0] for points in found]
