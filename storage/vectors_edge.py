"""The embedded engine's vectors: Qdrant itself in this process (``qdrant-edge-py``), one opener per folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from storage.edge_collection import EdgeCollection, is_complete, open_edge
from storage.errors import IntegrityError
from storage.hits import Hit, ordered_search
from storage.home import Home

__all__ = ["EdgeIndex", "is_complete", "open_edge_index", "stacked"]

QUERIES_PER_BATCH = 256
POINTS_PER_BATCH = 4096
HNSW_M, HNSW_EF_CONSTRUCT, HNSW_FULL_SCAN_KB = 16, 100, 10_000
"""Qdrant's defaults; used only when search is not exact."""


class EdgeIndex(EdgeCollection):
    """A ``VectorIndex`` over one folder; holds the lock of the folder until it is closed."""

    def __init__(self, folder: Path, dimension: int, *, exact: bool = True) -> None:
        super().__init__(folder, _shape(dimension))
        self._exact = exact
        self.dimension = dimension

    def load(self, ids: NDArray[np.integer], vectors: NDArray[np.float32]) -> None:
        """See ``VectorIndex``."""
        for start in range(0, len(ids), POINTS_PER_BATCH):
            part = slice(start, start + POINTS_PER_BATCH)
            points = [edge.Point(i, v) for i, v in zip(ids[part].tolist(), vectors[part].tolist(), strict=True)]
            self.check_room()
            self._shard.update(edge.UpdateOperation.upsert_points(points))

    def finish(self) -> None:
        """Makes what was loaded durable, after building the graph when search is not exact."""
        if not self._exact:
            self._shard.optimize()
        super().finish()

    def search(self, queries: NDArray[np.float32], top: int) -> list[list[Hit]]:
        """See ``VectorIndex``."""
        total = self.count()
        answers: list[list[Hit]] = []
        for start in range(0, len(queries), QUERIES_PER_BATCH):
            answers += ordered_search(self._fetch, queries[start : start + QUERIES_PER_BATCH], top, total)
        return answers

    def _fetch(self, queries: NDArray[np.float32], limit: int) -> list[list[tuple[int, float]]]:
        params = edge.SearchParams(exact=self._exact)
        requests = [
            edge.QueryRequest(limit=limit, query=edge.Query.Nearest(query), params=params, with_payload=False)
            for query in queries.tolist()
        ]
        found = self._shard.query_batch(edge.QueryBatchRequest(requests))
        return [[(int(str(point.id)), point.score) for point in points] for points in found]

    def vectors_of(self, ids: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float32]:
        """See ``VectorIndex``."""
        wanted = [int(i) for i in ids]
        records = self._shard.retrieve(sorted(set(wanted)), False, True)
        stored = {int(str(record.id)): record.vector for record in records}
        return stacked(stored, wanted, self.dimension)


def stacked(stored: Mapping[int, object], wanted: Sequence[int], dimension: int) -> NDArray[np.float32]:
    """Vectors by number as ``[n, dimension]`` in the wanted order; raises ``IntegrityError`` when one is missing."""
    missing = [i for i in wanted if stored.get(i) is None]
    if missing:
        raise IntegrityError(f"the index has no vector of chunk {missing[0]}.", hint="Run policylong ingest again.")
    return np.array([stored[i] for i in wanted], dtype=np.float32).reshape(len(wanted), dimension)


def open_edge_index(
    home: Home,
    name: str,
    shape: tuple[int, int],
    fill: Callable[[EdgeIndex], None],
    *,
    exact: bool,
    wait_seconds: float,
) -> EdgeIndex:
    """Takes the lock and opens the folder; filled anew unless its marker says ``shape`` = (rows, dimension)."""
    rows, dimension = shape
    return open_edge(
        home, name, rows, lambda folder: EdgeIndex(folder, dimension, exact=exact), fill, wait_seconds=wait_seconds
    )


def _shape(dimension: int) -> edge.EdgeConfig:
    # Dot, not Cosine: the vectors have unit length already, and Cosine would change their last bits by normalising
    # again.
    vectors = edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Dot)
    graph = edge.HnswIndexConfig(m=HNSW_M, ef_construct=HNSW_EF_CONSTRUCT, full_scan_threshold=HNSW_FULL_SCAN_KB)
    return edge.EdgeConfig(vectors=vectors, hnsw_config=graph, wal_enabled=False)
