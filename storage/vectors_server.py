"""The server engine: a Qdrant server by URL, with the same answers as the embedded one.

Points are named by chunk number, so loading twice changes nothing. During the load no graph is built; an exact
search never needs one. The alias moves to the collection in one call after the count was checked. The API key comes
from the environment (``QDRANT_API_KEY``) and is never stored. Requests that fail for a passing reason are tried
again with growing pauses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from tenacity import (
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from storage.errors import IntegrityError, ServiceError
from storage.hits import Hit, ordered_search
from storage.vectors_edge import stacked

API_KEY = "QDRANT_API_KEY"
QUERIES_PER_REQUEST = 64
HNSW_M = 16
"""Edges per node of the graph; Qdrant's default; used only when search is not exact."""
INDEXING_SECONDS = 3600.0
"""Patience for the server to build its graph. Ours."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the server is reached."""

    url: str
    timeout_seconds: float = 60.0
    attempts: int = 5
    batch: int = 256
    longest_pause_seconds: float = 20.0


class ServerIndex:
    """A ``VectorIndex`` over one collection of a server; any ``QdrantClient`` serves, also one in memory."""

    def __init__(
        self, client: QdrantClient, name: str, dimension: int, settings: ServerSettings, *, exact: bool = True
    ) -> None:
        self._client = client
        self._name = name
        self._settings = settings
        self._exact = exact
        self.dimension = dimension

    def create(self) -> None:
        """Makes the collection when it is not there; refuses one whose vectors have another length."""
        if not self._call(lambda: self._client.collection_exists(self._name)):
            self._call(
                lambda: self._client.create_collection(
                    self._name,
                    vectors_config=models.VectorParams(size=self.dimension, distance=models.Distance.DOT),
                    hnsw_config=models.HnswConfigDiff(m=0),
                )
            )
        found = self._call(lambda: self._client.get_collection(self._name)).config.params.vectors
        if not isinstance(found, models.VectorParams) or found.size != self.dimension:
            raise IntegrityError(
                f"collection {self._name} on {self._settings.url} does not hold {self.dimension} dimensions.",
                hint="Delete it on the server and run the same command again.",
            )

    def load(self, ids: NDArray[np.integer], vectors: NDArray[np.float32]) -> None:
        """See ``VectorIndex``."""
        for start in range(0, len(ids), self._settings.batch):
            part = slice(start, start + self._settings.batch)
            batch = models.Batch(ids=ids[part].tolist(), vectors=vectors[part].tolist())
            self._call(lambda batch=batch: self._client.upsert(self._name, points=batch, wait=True))  # type: ignore[misc]

    def finish(self, alias: str) -> None:
        """Has the graph built when search is not exact, then moves the alias here in one call."""
        if not self._exact:
            self._call(lambda: self._client.update_collection(self._name, hnsw_config=models.HnswConfigDiff(m=HNSW_M)))
            self._wait_until_indexed()
        operations: list[models.AliasOperations] = [
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=self._name, alias_name=alias))
        ]
        there = self._call(lambda: self._client.get_aliases()).aliases
        if any(entry.alias_name == alias for entry in there):
            operations.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        self._call(lambda: self._client.update_collection_aliases(change_aliases_operations=operations))

    def count(self) -> int:
        """See ``VectorIndex``."""
        return int(self._call(lambda: self._client.count(self._name, exact=True)).count)

    def search(self, queries: NDArray[np.float32], top: int) -> list[list[Hit]]:
        """See ``VectorIndex``."""
        total = self.count()
        answers: list[list[Hit]] = []
        for start in range(0, len(queries), QUERIES_PER_REQUEST):
            answers += ordered_search(self._fetch, queries[start : start + QUERIES_PER_REQUEST], top, total)
        return answers

    def _fetch(self, queries: NDArray[np.float32], limit: int) -> list[list[tuple[int, float]]]:
        params = models.SearchParams(exact=self._exact)
        requests = [
            models.QueryRequest(query=query, limit=limit, params=params, with_payload=False)
            for query in queries.tolist()
        ]
        found = self._call(lambda: self._client.query_batch_points(self._name, requests=requests))
        return [[(int(point.id), point.score) for point in response.points] for response in found]

    def vectors_of(self, ids: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float32]:
        """See ``VectorIndex``."""
        wanted = [int(i) for i in ids]
        unique = sorted(set(wanted))
        stored: dict[int, object] = {}
        for start in range(0, len(unique), self._settings.batch):
            part = unique[start : start + self._settings.batch]
            records = self._call(
                lambda part=part: self._client.retrieve(self._name, ids=part, with_payload=False, with_vectors=True)  # type: ignore[misc]
            )
            stored.update((int(record.id), record.vector) for record in records)
        return stacked(stored, wanted, self.dimension)

    def close(self) -> None:
        """See ``VectorIndex``."""
        self._client.close()

    def _call(self, request: Callable[[], T]) -> T:
        pause = wait_random_exponential(multiplier=0.2, max=self._settings.longest_pause_seconds)
        tries = Retrying(
            retry=retry_if_exception(_passing),
            stop=stop_after_attempt(self._settings.attempts),
            wait=pause,
            reraise=True,
        )
        try:
            return tries(request)
        except (ResponseHandlingException, ResourceExhaustedResponse, httpx.HTTPError) as error:
            raise ServiceError(
                f"Qdrant at {self._settings.url} does not answer after {self._settings.attempts} tries ({error}).",
                hint="Check that it runs, then run the same command again: it carries on.",
            ) from error
        except UnexpectedResponse as error:
            if error.status_code in (401, 403):
                hint = f"Set {API_KEY} in the environment."
            else:
                hint = "Check the server's log, then run the same command again: it carries on."
            raise ServiceError(
                f"Qdrant at {self._settings.url} refused: {error.status_code} {error.reason_phrase}.", hint=hint
            ) from error

    def _wait_until_indexed(self) -> None:
        wait = Retrying(
            retry=retry_if_result(lambda status: status != models.CollectionStatus.GREEN),
            stop=stop_after_delay(INDEXING_SECONDS),
            wait=wait_random_exponential(multiplier=0.5, max=self._settings.longest_pause_seconds),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        if (
            wait(lambda: self._call(lambda: self._client.get_collection(self._name)).status)
            != models.CollectionStatus.GREEN
        ):
            raise ServiceError(
                f"Qdrant has not indexed {self._name} after {INDEXING_SECONDS:.0f} s.", hint="Check the server's log."
            )


def _passing(error: BaseException) -> bool:
    """Whether a request may go well when it is sent again."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code is None or error.status_code >= 500 or error.status_code in (408, 429)
    return isinstance(error, ResponseHandlingException | ResourceExhaustedResponse | httpx.TransportError)


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
    if client is None:
        key = os.environ.get(API_KEY)
        timeout = max(1, round(settings.timeout_seconds))
        client = QdrantClient(url=settings.url, api_key=key, timeout=timeout, check_compatibility=False)
    index = ServerIndex(client, name, dimension, settings, exact=exact)
    index.create()
    if index.count() != rows:
        fill(index)
        index.finish(alias)
    return index
