"""One collection of a Qdrant server by URL: requests that are tried again, a count, an alias.

Requests that fail for a passing reason are tried again with growing pauses, and not before the server asks for it
(``Retry-After``). Each may be sent twice, since an answer can be lost: points are named by chunk number, and what is
made or moved is looked at first. The API key comes from the environment (``QDRANT_API_KEY``) and is never stored.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import httpx
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    stop_all,
    wait_random_exponential,
)

from storage.errors import IntegrityError, ServiceError

API_KEY = "QDRANT_API_KEY"
LONGEST_ASKED_SECONDS = 300.0
"""A server that asks for a longer pause gets this one. Ours."""
CARRIES_ON = "run the same command again: it carries on."
_NO_ANSWER = (ResponseHandlingException, QdrantException, ValueError, AssertionError)
"""What the client raises for a connection that fails and for an answer that is none: no JSON, other fields, nothing."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the server is reached."""

    url: str
    timeout_seconds: float = 60.0
    attempts: int = 5
    batch: int = 256
    longest_pause_seconds: float = 20.0
    patience_seconds: float = 0.0
    """A request is tried again for at least this long."""


def connect(settings: ServerSettings) -> QdrantClient:
    """A client of the server; nothing is asked yet."""
    timeout = max(1, round(settings.timeout_seconds))
    return QdrantClient(url=settings.url, api_key=os.environ.get(API_KEY), timeout=timeout, check_compatibility=False)


class ServerCollection:
    """A collection; any ``QdrantClient`` serves, also one in memory."""

    def __init__(self, client: QdrantClient, name: str, settings: ServerSettings) -> None:
        self._client = client
        self._name = name
        self._settings = settings

    def make(
        self,
        vectors: models.VectorParams | Mapping[str, models.VectorParams],
        *,
        sparse: Mapping[str, models.SparseVectorParams] | None = None,
    ) -> models.CollectionInfo:
        """Makes the collection when it is not there, without a graph; returns what the server says of it."""

        def created() -> None:
            try:
                self._client.create_collection(
                    self._name,
                    vectors_config=vectors,
                    sparse_vectors_config=sparse,
                    hnsw_config=models.HnswConfigDiff(m=0),
                )
            except UnexpectedResponse as error:
                # Made by another process, or by this request when its answer was lost.
                if error.status_code not in (400, 409) or not self._client.collection_exists(self._name):
                    raise

        if not self.call(lambda: self._client.collection_exists(self._name)):
            self.call(created)
        return self.call(lambda: self._client.get_collection(self._name))

    def count(self) -> int:
        """Points in the collection."""
        return int(self.call(lambda: self._client.count(self._name, exact=True)).count)

    def filled(self, rows: int) -> bool:
        """Whether all points are there; raises ``IntegrityError`` when there are more than ``rows``."""
        count = self.count()
        if count > rows:
            raise self.foreign(f"holds {count} points, the corpus has {rows} chunks")
        return count == rows

    def query(self, requests: Sequence[models.QueryRequest]) -> list[list[tuple[int, float]]]:
        """(point, score) of each query, as the server orders them."""
        found = self.call(lambda: self._client.query_batch_points(self._name, requests=requests))
        if len(found) != len(requests):
            raise self.strange(f"answered {len(found)} of {len(requests)} queries")
        if any(not isinstance(point.id, int) for response in found for point in response.points):
            raise self.foreign("has points that are not chunks")
        return [[(int(point.id), point.score) for point in response.points] for response in found]

    def point_alias(self, alias: str) -> None:
        """Lets the alias name this collection, in one call; nothing is sent when it does."""

        def moved() -> None:
            there = {entry.alias_name: entry.collection_name for entry in self._client.get_aliases().aliases}
            if there.get(alias) == self._name:
                return
            made = models.CreateAlias(collection_name=self._name, alias_name=alias)
            operations: list[models.AliasOperations] = [models.CreateAliasOperation(create_alias=made)]
            if alias in there:
                operations.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
            self._client.update_collection_aliases(change_aliases_operations=operations)

        self.call(moved)

    def close(self) -> None:
        """Lets the connection go."""
        self._client.close()

    def foreign(self, what: str) -> IntegrityError:
        """The error of a collection that is not the one that this corpus makes."""
        return IntegrityError(
            f"collection {self._name} on {self._settings.url} {what}.",
            hint="Delete it on the server and run the same command again.",
        )

    def strange(self, what: str) -> ServiceError:
        """The error of an answer that says something else than what was asked."""
        return ServiceError(
            f"Qdrant at {self._settings.url} {what}.", hint=f"Check that it is a Qdrant server, then {CARRIES_ON}"
        )

    def call(self, request: Callable[[], T]) -> T:
        """The answer to a request, which may be sent several times; raises ``ServiceError`` when there is none."""
        drawn = wait_random_exponential(multiplier=0.2, max=self._settings.longest_pause_seconds)

        def pause(state: RetryCallState) -> float:
            return max(drawn(state), _asked_for(state.outcome.exception() if state.outcome else None))

        tries = Retrying(
            retry=retry_if_exception(_passing),
            stop=stop_all(
                stop_after_attempt(self._settings.attempts), stop_after_delay(self._settings.patience_seconds)
            ),
            wait=pause,
            reraise=True,
        )
        try:
            return tries(request)
        except (*_NO_ANSWER, httpx.HTTPError) as error:
            raise ServiceError(
                f"Qdrant at {self._settings.url} does not answer after {tries.statistics['attempt_number']} tries"
                f" in {tries.statistics['delay_since_first_attempt']:.0f} s ({_brief(error)}).",
                hint=f"Check that it runs, then {CARRIES_ON}",
            ) from error
        except UnexpectedResponse as error:
            if error.status_code in (401, 403):
                hint = f"Set {API_KEY} in the environment."
            else:
                hint = f"Check the server's log, then {CARRIES_ON}"
            raise ServiceError(
                f"Qdrant at {self._settings.url} refused: {error.status_code} {error.reason_phrase}.", hint=hint
            ) from error


def _passing(error: BaseException) -> bool:
    """Whether a request may go well when it is sent again."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code is None or error.status_code >= 500 or error.status_code in (408, 429)
    return isinstance(error, (*_NO_ANSWER, httpx.TransportError))


def _asked_for(error: BaseException | None) -> float:
    """Seconds that the server wants to be left alone."""
    asked = error.retry_after_s if isinstance(error, ResourceExhaustedResponse) else 0
    return min(float(asked), LONGEST_ASKED_SECONDS)


def _brief(error: BaseException) -> str:
    source = error.source if isinstance(error, ResponseHandlingException) else error
    if isinstance(source, ValueError | AssertionError):
        return "its answer is not one of Qdrant's"
    return " ".join(str(error).split())[:200]
