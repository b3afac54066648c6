"""The index of a corpus's chunks: opened, filled when it is not complete, searched; two engines behind one interface.

``embedded`` is Qdrant's engine in this process (one opener per home at a time, by lock); ``server`` is a Qdrant server
by URL. Search is exact by default, so both give the same answers. An index holds nothing that the corpus's vector
tables do not: it can be deleted at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from storage.addresses import split_credentials
from storage.corpora import Corpus, check_corpus_table
from storage.digests import short
from storage.errors import IntegrityError
from storage.hits import Hit, VectorIndex
from storage.home import Home
from storage.refs import Ref
from storage.tables import open_table
from storage.vectors_edge import is_complete, open_edge_index
from storage.vectors_server import ServerSettings, open_server_index

__all__ = [
    "Hit",
    "IndexConfig",
    "VectorIndex",
    "collection_name",
    "ensure_index",
    "fill",
    "prepare_index",
    "server_settings",
    "vector_batches",
]


class IndexConfig(BaseModel):
    """Which engine holds the vectors and how it searches; only ``exact`` can change an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["embedded", "server"] = Field(
        "embedded", description="In this process, or a Qdrant server by URL. Ours."
    )
    url: str | None = Field(None, description="Address of the server, such as http://localhost:6333.")
    exact: bool = Field(
        True, description="Compare with every vector; false searches a HNSW graph, not reproducibly. Ours."
    )
    alias: str | None = Field(None, description="Server only: alias moved to the collection once it is complete.")
    batch: int = Field(256, ge=1, description="Server only: vectors per request; Qdrant's advice is 64 to 256.")
    timeout_seconds: float = Field(60.0, gt=0, description="Server only: patience per request. Ours.")
    attempts: int = Field(5, ge=1, description="Server only: tries per request before it is an error. Ours.")
    patience_seconds: float = Field(
        120.0, ge=0, description="Server only: a request that fails is tried again for at least this long. Ours."
    )
    lock_wait_seconds: float = Field(60.0, ge=0, description="Embedded only: patience for another process. Ours.")

    @field_validator("url")
    @classmethod
    def _no_password_in_it(cls, url: str | None) -> str | None:
        # A configuration is written into records, pages and databases.
        if url is not None and split_credentials(url)[1] is not None:
            raise ValueError("an address with a user or password in it; the key belongs into QDRANT_API_KEY")
        return url

    @model_validator(mode="after")
    def _server_has_an_address(self) -> IndexConfig:
        if (self.engine == "server") != (self.url is not None):
            raise ValueError("engine 'server' needs a url, and a url needs engine 'server'")
        return self


def collection_name(corpus: Corpus, config: IndexConfig) -> str:
    """The collection's name: it changes with corpus, chunking and embedder, never with the round."""
    graph = "" if config.exact else "-hnsw"
    return f"chunks-{short(corpus.digest, 16)}-{short(corpus.embedder_digest, 8)}{graph}"


def ensure_index(home: Home, corpus: Corpus, config: IndexConfig) -> VectorIndex:
    """Opens the corpus's index, filling it from the vector tables first when it is not complete.

    Raises ``BusyError`` when another process has the embedded index, ``ServiceError`` when the server does not
    answer and ``IntegrityError`` when the count after loading is wrong. The caller closes it.
    """
    name, shape = collection_name(corpus, config), (corpus.chunks.rows, corpus.dimension)
    if config.engine == "embedded":
        return open_edge_index(
            home,
            name,
            shape,
            lambda index: fill(home, index, corpus),
            exact=config.exact,
            wait_seconds=config.lock_wait_seconds,
        )
    alias = config.alias or f"policylong-{short(corpus.digest, 16)}"
    return open_server_index(
        server_settings(config),
        name,
        alias,
        shape,
        lambda index: fill(home, index, corpus),
        exact=config.exact,
    )


def server_settings(config: IndexConfig) -> ServerSettings:
    """How the server of a configuration is reached."""
    return ServerSettings(
        url=str(config.url),
        timeout_seconds=config.timeout_seconds,
        attempts=config.attempts,
        batch=config.batch,
        patience_seconds=config.patience_seconds,
    )


def prepare_index(home: Home, corpus: Corpus, config: IndexConfig) -> None:
    """Makes sure that the index is complete without keeping it; one that says it is complete is not even opened.

    Raises as ``ensure_index`` does.
    """
    if config.engine == "embedded" and is_complete(home, collection_name(corpus, config), corpus.chunks.rows):
        return
    ensure_index(home, corpus, config).close()


def fill(home: Home, index: VectorIndex, corpus: Corpus) -> None:
    """Loads all vectors of a corpus; raises ``IntegrityError`` when a table of them was changed or the index then holds
    another number of them.
    """
    for ref in corpus.vectors:
        check_corpus_table(home, ref)
        for ids, vectors in vector_batches(home, ref, corpus.dimension):
            index.load(ids, vectors)
    if (count := index.count()) != corpus.chunks.rows:
        raise IntegrityError(
            f"the index holds {count} vectors after loading, the corpus has {corpus.chunks.rows} chunks.",
            hint="Run policylong ingest again; policylong audit names damaged files.",
        )


def vector_batches(home: Home, ref: Ref, dimension: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """(chunk numbers ``[n]``, vectors ``[n, dimension]``) of a vectors table, a row group at a time."""
    with open_table(home.path, ref) as file:
        for batch in file.iter_batches(batch_size=1024, columns=["chunk", "vector"]):
            values = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
            ids = batch.column("chunk").to_numpy(zero_copy_only=False).astype(np.int64)
            if values.size != len(ids) * dimension:
                raise IntegrityError(f"{ref.uri} has vectors of another length than {dimension}.")
            yield ids, values.astype(np.float32, copy=False).reshape(len(ids), dimension)


def vectors_array(vectors: NDArray[np.float32]) -> pa.ListArray:
    """A matrix as the ``vector`` column of a vectors table."""
    offsets = np.arange(0, vectors.size + 1, vectors.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.reshape(-1)))
