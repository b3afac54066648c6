"""A Qdrant that fails on purpose: what passes changes no answer, what stays is one clear line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from storage.errors import IntegrityError, PolicylongError, ServiceError
from storage.home import Home
from storage.server_collection import LONGEST_ASKED_SECONDS
from storage.vectors import IndexConfig, collection_name, ensure_index, fill
from storage.vectors_server import HNSW_M, ServerIndex, ServerSettings, open_server_index
from storage.word_index import ensure_words
from storage.words import Bm25
from tests.failing_qdrant import (
    Act,
    Peer,
    changed,
    cut_after,
    cut_before,
    forgetful,
    half,
    nothing,
    other_json,
    page,
    serving,
    silent,
    status,
)
from tests.storage.test_vectors import DIMENSION, HASTY, expected, make_corpus, unit_vectors

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

ROWS = 100


def index_of(peer: Peer, *, attempts: int = 3, exact: bool = True) -> ServerIndex:
    vectors = unit_vectors(ROWS)
    settings = ServerSettings(peer.address, timeout_seconds=1, attempts=attempts, batch=30, longest_pause_seconds=0.0)

    def load(index: ServerIndex) -> None:
        index.load(np.arange(ROWS), vectors)

    return open_server_index(settings, "c", "alias", vectors.shape, load, exact=exact)


def checked(index: ServerIndex) -> None:
    """The whole index answers as a comparison with every vector does."""
    vectors = unit_vectors(ROWS)
    assert [[hit.chunk for hit in hits] for hits in index.search(vectors[:5], 9)] == expected(vectors, vectors[:5], 9)
    assert np.array_equal(index.vectors_of([99, 3]), vectors[[99, 3]])
    assert index.count() == ROWS
    index.close()


PASSING: dict[str, Act] = {
    "an error of the server": status(500),
    "a proxy without a server behind it": status(503),
    "too many requests": status(429),
    "a connection cut before": cut_before,
    "a connection cut after it was done": cut_after,
    "half an answer": half,
    "a page instead of an answer": page,
    "JSON of something else": other_json,
    "JSON of nothing": nothing,
}


@pytest.mark.parametrize("act", PASSING.values(), ids=PASSING.keys())
def test_every_request_may_fail_once_and_the_answers_stay(tmp_path: Path, act: Act) -> None:
    with serving(tmp_path, {"all": act}) as peer:
        checked(index_of(peer))
        assert set(peer.requests) == {
            "exists",
            "create",
            "describe",
            "upsert",
            "count",
            "search",
            "retrieve",
            "aliases",
        }
        assert peer.requests["upsert"] == 4 + 1, "only the batch that failed is sent again"
        assert peer.qdrant._aliases == {"alias": "c"}


def test_an_answer_that_does_not_come_is_not_waited_for_longer_than_the_timeout(tmp_path: Path) -> None:
    with serving(tmp_path, {"upsert": silent}) as peer:
        checked(index_of(peer))
        assert peer.requests["upsert"] == 5


@pytest.mark.parametrize(
    ("asked", "least"), [("7", 7.0), ("86400", LONGEST_ASKED_SECONDS), ("Wed, 25 Nov 2026 07:28:00 GMT", 0.0)]
)
def test_a_server_that_asks_for_a_pause_gets_it(
    tmp_path: Path, asked: str, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    with serving(tmp_path, {"upsert": status(429, Retry_After=asked)}) as peer:
        checked(index_of(peer))
    assert slept == [least]


@dataclass(frozen=True)
class Failing:
    """A request that always fails: how often it is sent, and what the one line and its hint say."""

    kind: str
    act: Act
    sent: int
    says: str
    hint: str
    error: type[PolicylongError] = ServiceError


STAYING: dict[str, Failing] = {
    "no key": Failing("exists", status(401), 1, "refused: 401 Unauthorized", "Set QDRANT_API_KEY"),
    "a key that may only read": Failing("create", status(403), 1, "refused: 403 Forbidden", "Set QDRANT_API_KEY"),
    "a collection deleted meanwhile": Failing("upsert", status(404), 1, "refused: 404 Not Found", "server's log"),
    "vectors that it refuses": Failing("upsert", status(400), 1, "refused: 400 Bad Request", "server's log"),
    "too many requests": Failing("describe", status(429), 3, "refused: 429 Too Many Requests", "carries on"),
    "nothing behind the proxy": Failing("exists", status(503), 3, "refused: 503 Service Unavailable", "carries on"),
    "a broken server": Failing("count", status(500), 3, "refused: 500 Internal Server Error", "carries on"),
    "a connection always cut": Failing("upsert", cut_before, 3, "does not answer after 3 tries", "carries on"),
    "always half an answer": Failing("search", half, 3, "does not answer after 3 tries", "carries on"),
    "a page": Failing("exists", page, 3, "its answer is not one of Qdrant's", "carries on"),
    "JSON of something else": Failing("count", other_json, 3, "its answer is not one of Qdrant's", "carries on"),
    "JSON of nothing": Failing("retrieve", nothing, 3, "its answer is not one of Qdrant's", "carries on"),
    "an alias it may not move": Failing("aliases", status(403), 1, "refused: 403", "Set QDRANT_API_KEY"),
    "queries without an answer": Failing(
        "search", changed(lambda lists: lists[:2]), 1, "answered 2 of 5 queries", "Check that it is a Qdrant server"
    ),
    "neighbours that are missing": Failing(
        "search",
        changed(lambda lists: [{"points": found["points"][:7]} for found in lists]),
        1,
        "gave 7 neighbours of a query, not 25",
        "Check that it is a Qdrant server",
    ),
    "points of somebody else": Failing(
        "search",
        changed(lambda lists: [{"points": [{**p, "id": f"{p['id']:032x}"} for p in f["points"]]} for f in lists]),
        1,
        "has points that are not chunks",
        "Delete it on the server",
        IntegrityError,
    ),
    "vectors that are missing": Failing(
        "retrieve", changed(lambda found: found[:1]), 1, "has no vector of chunk 99", "", IntegrityError
    ),
    "a collection of another size": Failing(
        "describe",
        changed(lambda found: _with_size(found, 17)),
        1,
        "does not hold 16 dimensions",
        "Delete it on the server",
        IntegrityError,
    ),
    "a collection of more points": Failing(
        "count", changed(lambda found: {"count": 101}), 1, "holds 101 points, the corpus has 100 chunks",
        "Delete it on the server", IntegrityError,
    ),
}  # fmt: skip


def _with_size(found: dict[str, Any], size: int) -> dict[str, Any]:
    found["config"]["params"]["vectors"]["size"] = size
    return found


@pytest.mark.parametrize("failing", STAYING.values(), ids=STAYING.keys())
def test_what_stays_is_one_clear_line_and_afterwards_the_same_command_carries_on(
    tmp_path: Path, failing: Failing
) -> None:
    with serving(tmp_path, {failing.kind: failing.act}, times=1000) as peer:
        with pytest.raises(failing.error) as caught:
            checked(index_of(peer))
        assert failing.says in caught.value.message
        assert "\n" not in caught.value.message
        assert failing.hint in caught.value.hint
        assert peer.requests[failing.kind] == failing.sent
        peer.acts.clear()
        checked(index_of(peer))


def test_a_server_that_says_nothing_at_all_is_one_clear_line(tmp_path: Path) -> None:
    with serving(tmp_path, {"exists": silent}, times=1000) as peer:
        with pytest.raises(ServiceError, match=r"does not answer after 1 tries in 1 s .timed out") as caught:
            index_of(peer, attempts=1)
        assert "\n" not in caught.value.message


def test_points_that_a_server_only_says_it_has_are_noticed(home: Home, tmp_path: Path) -> None:
    corpus = make_corpus(home, unit_vectors(60))
    with serving(tmp_path / "peer", {"upsert": forgetful}) as peer:
        config = IndexConfig(engine="server", url=peer.address, batch=25, attempts=1, patience_seconds=0)
        with pytest.raises(IntegrityError, match="holds 35 vectors after loading, the corpus has 60 chunks"):
            ensure_index(home, corpus, config)
        index = ensure_index(home, corpus, config)
        assert index.count() == 60
        index.close()


def test_a_graph_is_asked_for_after_the_load_and_only_when_search_is_not_exact(tmp_path: Path) -> None:
    with serving(tmp_path) as peer:
        index_of(peer).close()
        assert not peer.requests["update"]
        index_of(peer, exact=False).close()
        assert [body for kind, body in peer.bodies if kind == "update"] == [{"hnsw_config": {"m": HNSW_M}}]
        assert next(body for kind, body in peer.bodies if kind == "create")["hnsw_config"] == {"m": 0}


def test_a_load_that_ended_before_its_alias_moved_is_put_right(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    client, corpus = QdrantClient(":memory:"), make_corpus(home, unit_vectors(60))
    client.create_collection("older", models.VectorParams(size=2, distance=models.Distance.DOT))
    elsewhere = models.CreateAlias(collection_name="older", alias_name="alias")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=elsewhere)])
    name = collection_name(corpus, IndexConfig())

    def opened() -> dict[str, str]:
        open_server_index(
            HASTY, name, "alias", (60, DIMENSION), lambda i: fill(home, i, corpus), exact=True, client=client
        )
        return {alias.alias_name: alias.collection_name for alias in client.get_aliases().aliases}

    with monkeypatch.context() as patched:
        patched.setattr(ServerIndex, "finish", lambda self, alias: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            opened()
    assert client.count(name).count == 60
    assert opened() == {"alias": name}
    sent: list[object] = []
    monkeypatch.setattr(client, "update_collection_aliases", sent.append)
    assert opened() == {"alias": name}
    assert not sent, "an alias that is right is left alone"


def test_a_collection_that_holds_no_words_is_not_searched_for_words(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, corpus = QdrantClient(":memory:"), make_corpus(home, unit_vectors(6))
    monkeypatch.setattr("storage.word_index.words_name", lambda corpus, bm25: "c")
    client.create_collection("c", models.VectorParams(size=2, distance=models.Distance.DOT))
    config = IndexConfig(engine="server", url="http://fake")
    with pytest.raises(IntegrityError, match="collection c on http://fake holds no words"):
        ensure_words(home, corpus, config, Bm25(1.2, 0.75), client=client)
