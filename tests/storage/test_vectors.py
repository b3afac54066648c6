"""Both engines give the answer of a comparison with every vector, and no engine's trouble is a traceback.

The server engine runs against the client's own in-memory engine here, against peers that fail in test_qdrant_peers.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from qdrant_client import QdrantClient

from storage.corpora import Corpus, open_corpus, publish_corpus
from storage.edge_collection import LEAST_BYTES
from storage.errors import BusyError, IntegrityError, ResourceError, ServiceError
from storage.hits import SCORE_STEP, Hit, VectorIndex, ordered_search
from storage.home import Home
from storage.schemas import CHUNKS, DOCUMENTS, QUARANTINE, VECTORS
from storage.tables import write_table
from storage.vectors import IndexConfig, collection_name, ensure_index, fill, prepare_index
from storage.vectors_edge import EdgeIndex
from storage.vectors_server import ServerIndex, ServerSettings, open_server_index

# The client's in-memory engine says that it searches exactly anyway.
pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

DIMENSION = 16
HASTY = ServerSettings("http://fake", attempts=3, batch=50, longest_pause_seconds=0.0)


def unit_vectors(rows: int, seed: int = 0) -> NDArray[np.float32]:
    """Random unit vectors of which every third is a copy of another, so that there are ties."""
    vectors = np.random.default_rng(seed).normal(size=(rows, DIMENSION)).astype(np.float32)
    vectors[::3] = vectors[0]
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def make_corpus(home: Home, vectors: NDArray[np.float32], rows: int | None = None) -> Corpus:
    count = len(vectors)
    row = {"vector": None, "truncated": 0}
    tables = {
        "documents": write_table(home.path, "work/d.parquet", DOCUMENTS, []),
        "chunks": write_table(home.path, "work/c.parquet", CHUNKS, map(chunk_row, range(rows or count))),
        "quarantine": write_table(home.path, "work/q.parquet", QUARANTINE, []),
    }
    for number, start in enumerate(range(0, count, 200)):
        part = [{**row, "chunk": i, "vector": vectors[i].tolist()} for i in range(start, min(start + 200, count))]
        name = f"vectors-{number:05d}"
        tables[name] = write_table(home.path, f"work/{name}.parquet", VECTORS, part)
    return open_corpus(home, publish_corpus(home, {"embedder": {"digest": "e" * 64, "dimension": DIMENSION}}, tables))


def chunk_row(number: int) -> dict[str, object]:
    return {
        "chunk_id": f"c{number}",
        "doc": 0,
        "ordinal": number,
        "char_start": 0,
        "char_end": 1,
        "tokens": 1,
        "text": "x",
    }


def expected(vectors: NDArray[np.float32], queries: NDArray[np.float32], top: int) -> list[list[int]]:
    scores = np.round((queries.astype(np.float64) @ vectors.T.astype(np.float64)) / SCORE_STEP)
    return [sorted(range(len(vectors)), key=lambda i: (-row[i], i))[:top] for row in scores]


@pytest.fixture(params=["embedded", "server"])
def index(request: pytest.FixtureRequest, home: Home) -> Iterator[tuple[VectorIndex, NDArray[np.float32]]]:
    vectors = unit_vectors(500)
    corpus = make_corpus(home, vectors)
    if request.param == "embedded":
        opened: VectorIndex = ensure_index(home, corpus, IndexConfig())
    else:
        opened = server_index(home, corpus, QdrantClient(":memory:"))
    yield opened, vectors
    opened.close()


def server_index(home: Home, corpus: Corpus, client: QdrantClient) -> ServerIndex:
    name, shape = collection_name(corpus, IndexConfig()), (corpus.chunks.rows, corpus.dimension)
    return open_server_index(HASTY, name, "alias", shape, lambda i: fill(home, i, corpus), exact=True, client=client)


@pytest.mark.parametrize("top", [1, 7, 200, 600])
def test_search_is_the_comparison_with_every_vector(index: tuple[VectorIndex, NDArray[np.float32]], top: int) -> None:
    opened, vectors = index
    queries = np.concatenate([vectors[:3], unit_vectors(5, seed=9)])
    found = opened.search(queries, top)
    assert [[hit.chunk for hit in hits] for hits in found] == expected(vectors, queries, top)
    scores = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    for query, hits in enumerate(found):
        assert all(abs(hit.score - scores[query, hit.chunk]) <= SCORE_STEP for hit in hits)


def test_stored_vectors_come_back_bit_for_bit_in_the_order_asked_for(
    index: tuple[VectorIndex, NDArray[np.float32]],
) -> None:
    opened, vectors = index
    ids = [499, 3, 3, 0, 250]
    assert np.array_equal(opened.vectors_of(ids), vectors[ids])
    assert opened.count() == 500
    with pytest.raises(IntegrityError, match="no vector of chunk 500"):
        opened.vectors_of([500])


def test_loading_the_same_numbers_again_changes_nothing(index: tuple[VectorIndex, NDArray[np.float32]]) -> None:
    opened, vectors = index
    before = opened.search(vectors[:2], 9)
    opened.load(np.arange(100), vectors[:100])
    assert opened.count() == 500
    assert opened.search(vectors[:2], 9) == before


def test_ties_past_the_cut_are_decided_by_number_whatever_the_engine_says() -> None:
    asked: list[int] = []

    def fetch(queries: NDArray[np.float32], limit: int) -> list[list[tuple[int, float]]]:
        asked.append(limit)
        return [[(chunk, 0.5) for chunk in range(99, 99 - limit, -1)] for _ in queries]

    found = ordered_search(fetch, np.zeros((1, DIMENSION), np.float32), 3, 100)
    assert found == [[Hit(0, 0.5), Hit(1, 0.5), Hit(2, 0.5)]]
    assert asked == [19, 38, 76, 100]


def test_an_embedded_index_is_loaded_once_and_has_one_opener(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = make_corpus(home, unit_vectors(300))
    first = ensure_index(home, corpus, IndexConfig())
    with pytest.raises(BusyError, match="index-chunks-"):
        ensure_index(home, corpus, IndexConfig(lock_wait_seconds=0))
    first.close()
    first.close()

    def refuse(*_: object) -> None:
        raise AssertionError("loaded twice")

    monkeypatch.setattr(EdgeIndex, "load", refuse)
    second = ensure_index(home, corpus, IndexConfig())
    assert second.count() == 300
    second.close()


def test_preparing_a_complete_index_does_not_need_it_to_be_free(home: Home) -> None:
    corpus = make_corpus(home, unit_vectors(30))
    prepare_index(home, corpus, IndexConfig())
    held = ensure_index(home, corpus, IndexConfig())
    prepare_index(home, corpus, IndexConfig(lock_wait_seconds=0))
    held.close()


def test_a_load_that_was_killed_starts_over(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit_vectors(500)
    corpus = make_corpus(home, vectors)
    real, calls = EdgeIndex.load, [0]

    def stops(self: EdgeIndex, ids: NDArray[np.integer], vectors: NDArray[np.float32]) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        real(self, ids, vectors)

    monkeypatch.setattr(EdgeIndex, "load", stops)
    with pytest.raises(KeyboardInterrupt):
        ensure_index(home, corpus, IndexConfig())
    monkeypatch.setattr(EdgeIndex, "load", real)
    index = ensure_index(home, corpus, IndexConfig())
    assert index.count() == 500
    assert [hit.chunk for hit in index.search(vectors[1:2], 1)[0]] == [1]
    index.close()


def test_an_index_whose_files_are_damaged_is_a_clear_error(home: Home) -> None:
    corpus = make_corpus(home, unit_vectors(50))
    ensure_index(home, corpus, IndexConfig()).close()
    folder = home / f"index/{collection_name(corpus, IndexConfig())}/shard"
    for path in folder.rglob("*.json"):
        path.write_text("{")
    with pytest.raises(IntegrityError, match="can't be used") as caught:
        ensure_index(home, corpus, IndexConfig())
    assert "Delete that folder" in caught.value.hint


def test_without_room_for_the_engine_s_files_nothing_is_opened_or_loaded(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine writes through memory: on a disk that is full the system would end the process."""
    corpus, real = make_corpus(home, unit_vectors(50)), shutil.disk_usage
    free = iter([LEAST_BYTES, LEAST_BYTES - 1])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=next(free)))
    with pytest.raises(ResourceError, match="the disk is full: 95 MiB are free") as error:
        ensure_index(home, corpus, IndexConfig())
    assert next(free, None) is None, "room was there when it was made, and not when it was to be loaded"
    assert "run the same command again" in error.value.hint
    monkeypatch.undo()
    ensure_index(home, corpus, IndexConfig()).close()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=0))
    with pytest.raises(ResourceError, match="the disk is full"):
        ensure_index(home, corpus, IndexConfig())


def test_vectors_that_are_missing_are_noticed_after_the_load(home: Home) -> None:
    corpus = make_corpus(home, unit_vectors(50), rows=51)
    with pytest.raises(IntegrityError, match="holds 50 vectors after loading, the corpus has 51 chunks"):
        ensure_index(home, corpus, IndexConfig())


def test_a_vector_that_was_changed_is_noticed_before_the_load(home: Home) -> None:
    corpus = make_corpus(home, unit_vectors(50))
    path = home / corpus.vectors[0].uri
    before = path.read_bytes()
    path.unlink()
    path.write_bytes(before.replace(before[300:304], b"\0\0\0\0", 1))
    with pytest.raises(IntegrityError, match=r"vectors-00000.parquet was changed") as caught:
        ensure_index(home, corpus, IndexConfig())
    assert "policylong ingest" in caught.value.hint


def test_the_server_is_filled_once_and_the_alias_moves(home: Home, tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    first = make_corpus(home, unit_vectors(60))
    second = make_corpus(Home.open(tmp_path / "other"), unit_vectors(70, seed=1))
    server_index(home, first, client)
    server_index(Home.open(tmp_path / "other"), second, client)
    aliases = {alias.alias_name: alias.collection_name for alias in client.get_aliases().aliases}
    assert aliases == {"alias": collection_name(second, IndexConfig())}
    again = open_server_index(
        HASTY,
        collection_name(first, IndexConfig()),
        "alias",
        (60, DIMENSION),
        refuse_to_fill,
        exact=True,
        client=client,
    )
    assert again.count() == 60


def refuse_to_fill(index: ServerIndex) -> None:
    raise AssertionError("filled twice")


def test_a_server_that_is_not_there_is_a_service_error() -> None:
    settings = ServerSettings("http://127.0.0.1:9", attempts=2, longest_pause_seconds=0.0)
    with pytest.raises(ServiceError, match="does not answer after 2 tries"):
        open_server_index(settings, "c", "a", (1, DIMENSION), refuse_to_fill, exact=True)


@pytest.mark.parametrize("values", [{"engine": "server"}, {"url": "http://localhost:6333"}, {"engine": "cloud"}])
def test_an_engine_and_its_address_belong_together(values: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        IndexConfig.model_validate(values)


def test_the_collection_is_named_by_corpus_and_embedder(home: Home) -> None:
    corpus = make_corpus(home, unit_vectors(4))
    assert collection_name(corpus, IndexConfig()) == f"chunks-{corpus.digest[:16]}-eeeeeeee"
