"""The embedded engine: Qdrant itself in this process (``qdrant-edge-py``), one opener per folder.

The folder is written once, without a write-ahead log, and believed only with the marker that is written after the
count was checked; a load that was killed starts over.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from storage.errors import IntegrityError, ResourceError
from storage.files import disk_errors, read_json, write_json
from storage.hits import Hit, ordered_search
from storage.home import Home

MARKER = "complete.json"
REMAKE = "Delete that folder and run the same command again: the index is made anew from the corpus."
ROOM = "Free space (policylong doctor shows how much there is) and run the same command again."
QUERIES_PER_BATCH = 256
POINTS_PER_BATCH = 4096
HNSW_M, HNSW_EF_CONSTRUCT, HNSW_FULL_SCAN_KB = 16, 100, 10_000
"""Qdrant's defaults; used only when search is not exact."""


class EdgeIndex:
    """A ``VectorIndex`` over one folder; holds the lock of the folder until it is closed."""

    def __init__(self, folder: Path, dimension: int, *, exact: bool = True, held: ExitStack | None = None) -> None:
        self._held = held or ExitStack()
        self._exact = exact
        self.dimension = dimension
        with _engine_errors(folder):
            self._shard = edge.EdgeShard.load(str(folder)) if any(folder.iterdir()) else _create(folder, dimension)
        self._open = True

    def load(self, ids: NDArray[np.integer], vectors: NDArray[np.float32]) -> None:
        """See ``VectorIndex``."""
        for start in range(0, len(ids), POINTS_PER_BATCH):
            part = slice(start, start + POINTS_PER_BATCH)
            points = [edge.Point(i, v) for i, v in zip(ids[part].tolist(), vectors[part].tolist(), strict=True)]
            self._shard.update(edge.UpdateOperation.upsert_points(points))

    def finish(self) -> None:
        """Makes what was loaded durable, after building the graph when search is not exact."""
        if not self._exact:
            self._shard.optimize()
        self._shard.flush()

    def count(self) -> int:
        """See ``VectorIndex``."""
        return int(self._shard.count(edge.CountRequest(exact=True)))

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

    def close(self) -> None:
        """See ``VectorIndex``."""
        if self._open:
            self._open = False
            self._shard.close()
            self._held.close()


def stacked(stored: Mapping[int, object], wanted: Sequence[int], dimension: int) -> NDArray[np.float32]:
    """Vectors by number as ``[n, dimension]`` in the wanted order; raises ``IntegrityError`` when one is missing."""
    missing = [i for i in wanted if stored.get(i) is None]
    if missing:
        raise IntegrityError(f"the index has no vector of chunk {missing[0]}.", hint="Run policylong ingest again.")
    return np.array([stored[i] for i in wanted], dtype=np.float32).reshape(len(wanted), dimension)


def is_complete(home: Home, name: str, rows: int) -> bool:
    """Whether the index's marker says that it was filled with ``rows`` vectors."""
    marker = home / f"index/{name}/{MARKER}"
    return marker.is_file() and read_json(marker) == {"vectors": rows}


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
    with ExitStack() as stack:
        stack.enter_context(home.lock(f"index-{name}", wait_seconds=wait_seconds))
        folder = home.folder(f"index/{name}")
        if is_complete(home, name, rows):
            index = EdgeIndex(folder / "shard", dimension, exact=exact)
            if index.count() == rows:
                return _holding(index, stack)
            index.close()
        shutil.rmtree(folder)
        (folder / "shard").mkdir(parents=True)
        index = EdgeIndex(folder / "shard", dimension, exact=exact)
        stack.callback(index.close)
        with _engine_errors(folder):
            fill(index)
            index.finish()
        write_json(folder / MARKER, {"vectors": rows})
        return _holding(index, stack)


def _holding(index: EdgeIndex, stack: ExitStack) -> EdgeIndex:
    index._held = stack.pop_all()
    return index


def _create(folder: Path, dimension: int) -> edge.EdgeShard:
    # Dot, not Cosine: the vectors have unit length already, and Cosine would change their last bits by normalising
    # again.
    vectors = edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Dot)
    graph = edge.HnswIndexConfig(m=HNSW_M, ef_construct=HNSW_EF_CONSTRUCT, full_scan_threshold=HNSW_FULL_SCAN_KB)
    return edge.EdgeShard.create(str(folder), edge.EdgeConfig(vectors=vectors, hnsw_config=graph, wal_enabled=False))


class _engine_errors:
    """Makes one clear error of the engine's own, which have no type but plain ``Exception``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._disk = disk_errors(folder)

    def __enter__(self) -> None:
        self._disk.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not Exception:
            self._disk.__exit__(kind, error, trace)
            return
        if "No space left" in str(error):
            raise ResourceError(f"the disk is full: {self._folder} could not be written.", hint=ROOM) from error
        raise IntegrityError(f"the vector index in {self._folder} can't be used ({error}).", hint=REMAKE) from error
