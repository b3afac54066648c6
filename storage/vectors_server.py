"""The server engine's vectors: a collection of a Qdrant server by URL, with the same answers as the embedded engine.

During the load no graph is built; an exact search never needs one. The alias moves to the collection in one call after
the count was checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_random_exponential

from storage.errors import ServiceError
from storage.hits import Hit, ordered_search
from storage.server_collection import API_KEY, ServerCollection, ServerSettings, connect
from storage.vectors_edge import stacked

__all__ = ["API_KEY", "ServerIndex", "ServerSettings", "open_server_index"]

QUERIES_PER_REQUEST = 64
HNSW_M = 16
"""Edges per node of the graph; Qdrant's default; used only when search is not exact."""
INDEXING_SECONDS = 3600.0
"""Patience for the server to build its graph. Ours."""


class ServerIndex(ServerCollection):
    """A ``VectorIndex`` over one collection of a server; any ``QdrantClient`` serves, also one in memory."""

    def __init__(
        self, client: QdrantClient, name: str, dimension: int, settings: ServerSettings, *, exact: bool = True
    ) -> None:
        super().__init__(client, name, settings)
        self._exact = exact
        self.dimension = dimension

    def create(self) -> None:
        """Makes the collection when it is not there; refuses one whose vectors have another length."""
        found = self.make(models.VectorParams(size=self.dimension, distance=models.Distance.DOT)).config.params.vectors
        if not isinstance(found, models.VectorParams) or found.size != self.dimension:
            raise self.foreign(f"does not hold {self.dimension} dimensions")

    def load(self, ids: NDArray[np.integer], vectors: NDArray[np.float32]) -> None:
        """See ``VectorIndex``."""
        for start in range(0, len(ids), self._settings.batch):
            part = slice(start, start + self._settings.batch)
            batch = models.Batch(ids=ids[part].tolist(), vectors=vectors[part].tolist())
            self.call(lambda batch=batch: self._client.upsert(self._name, points=batch, wait=True))  # type: ignore[misc]

    def finish(self, alias: str) -> None:
        """Has the graph built when search is not exact, then moves the alias here; nothing when both was done."""
        if not self._exact:
            if self.call(lambda: self._client.get_collection(self._name)).config.hnsw_config.m != HNSW_M:
                graph = models.HnswConfigDiff(m=HNSW_M)
                self.call(lambda: self._client.update_collection(self._name, hnsw_config=graph))
            self._wait_until_indexed()
        self.point_alias(alias)

    def search(self, queries: NDArray[np.float32], top: int) -> list[list[Hit]]:
        """See ``VectorIndex``."""
        total = self.count()
        answers: list[list[Hit]] = []
        for start in range(0, len(queries), QUERIES_PER_REQUEST):
            answers += ordered_search(self._fetch, queries[start : start + QUERIES_PER_REQUEST], top, total)
        return answers

    def _fetch(self, queries: NDArray[np.float32], limit: int) -> list[list[tuple[int, float]]]:
        params = models.SearchParams(exact=self._exact)
        found = self.query(
            [
                models.QueryRequest(query=query, limit=limit, params=params, with_payload=False)
                for query in queries.tolist()
            ]
        )
        if self._exact and any(len(points) != limit for points in found):
            raise self.strange(f"gave {min(map(len, found))} neighbours of a query, not {limit}")
        return found

    def vectors_of(self, ids: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float32]:
        """See ``VectorIndex``."""
        wanted = [int(i) for i in ids]
        unique = sorted(set(wanted))
        stored: dict[int, object] = {}
        for start in range(0, len(unique), self._settings.batch):
            part = unique[start : start + self._settings.batch]
            records = self.call(
                lambda part=part: self._client.retrieve(self._name, ids=part, with_payload=False, with_vectors=True)  # type: ignore[misc]
            )
            stored.update((int(record.id), record.vector) for record in records)
        return stacked(stored, wanted, self.dimension)

    def _wait_until_indexed(self) -> None:
        wait = Retrying(
            retry=retry_if_result(lambda status: status != models.CollectionStatus.GREEN),
            stop=stop_after_delay(INDEXING_SECONDS),
            wait=wait_random_exponential(multiplier=0.5, max=self._settings.longest_pause_seconds),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        if (
            wait(lambda: self.call(lambda: self._client.get_collection(self._name)).status)
            != models.CollectionStatus.GREEN
        ):
            raise ServiceError(
                f"Qdrant has not indexed {self._name} after {INDEXING_SECONDS:.0f} s.", hint="Check the server's log."
            )


def open_server_index(
    settings: ServerSettings,
    name: str,
    alias: str,
    shape: tuple[int, int],
    fill: Callable[[ServerIndex], None],
    *,
    exact: bool,
    client: QdrantClient | None = None,
) -> ServerIndex:
    """Opens the collection; filled first unless it holds all of ``shape`` = (rows, dimension)."""
    rows, dimension = shape
    index = ServerIndex(client or connect(settings), name, dimension, settings, exact=exact)
    index.create()
    if not index.filled(rows):
        fill(index)
    # Also when all is there: a load that was killed may have ended before this.
    index.finish(alias)
    return index
