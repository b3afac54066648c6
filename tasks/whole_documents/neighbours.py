"""Neighbours: for each document of a round, the documents nearest to it (docs/method.md 3, recipe ``knn``).

A document is looked up by the normalised mean of its chunks' vectors; among the chunks found, a document stands where
its first chunk stands [ours: the papers do not say how documents longer than a chunk are compared].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from storage.checkpoints import work_uri
from storage.hits import Hit, VectorIndex
from storage.home import Home
from storage.refs import Ref
from storage.schemas import NEIGHBOURS
from storage.tables import write_table
from storage.vectors import IndexConfig
from tasks.checkpointed import step
from tasks.corpus.chunk_owners import ChunkOwners
from tasks.progress import progress
from tasks.resources import index_for
from tasks.samples.spans import Form
from tasks.whole_documents.document_order import DocumentInputs, RoundDocuments
from tasks.whole_documents.supply import Most, Stock, most_of

DOCUMENTS_PER_SEARCH = 64
"""Documents looked up at once."""
CHUNKS_PER_NEIGHBOUR = 4
"""Chunks asked for at first per neighbour wanted; when they give too few documents, twice as many are asked for."""


class KnnOptions(BaseModel):
    """Options of ``knn``: a document followed by its nearest neighbours (the baseline of NExtLong's table)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    neighbours: int = Field(20, ge=1, description="Neighbours looked up per document; the papers do not say. [ours 3]")
    seed: int = Field(0, description="Salt of the documents' order. [ours 3]")


class NeighbourInputs(DocumentInputs):
    """The documents of a round, and the index they are looked up in."""

    first: int = Field(0, ge=0, description="First of this shard's documents, by its place in the round's order.")
    stop: int | None = Field(None, description="Place behind the last; None: as many as the samples can need.")
    index: IndexConfig = Field(exclude=True)
    exact: bool = True


def most_tokens(stock: Stock, form: Form, samples: int, options: KnnOptions) -> Most:
    """Most tokens of so many samples: a document stands in each once, and as a head once in all.

    The neighbours of a head stand in the sample that the head ends in, so they take a sample at most.
    """
    nearest = min(form.room, options.neighbours * most_of(1, stock.longest, form))
    tokens = min(samples * stock.all_tokens(form), stock.tokens(form) + stock.documents * nearest)
    told = (
        f", with {options.neighbours} neighbours each (build.options.neighbours) out of {stock.all_documents}"
        f" documents of {stock.all_size:,} bytes"
    )
    return Most(tokens, told)


def documents_needed(documents: RoundDocuments) -> int:
    """How many documents of the order suffice for the samples wanted.

    Every document is placed whole sooner or later, as the head of a sample or before that as a neighbour; so those
    whose tokens add up to the budget are enough.
    """
    wanted = documents.inputs.samples
    if wanted is None:
        return len(documents.listed)
    places = {document.row: place for place, document in enumerate(documents.listed)}
    total = 0
    for document in documents.tokens():
        total += len(document)
        if total >= wanted * documents.form.target:
            return places[document.row] + 1
    return len(documents.listed)


def mean_vector(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The normalised mean ``[d]`` of unit vectors ``[n, d]``, n >= 1; their sum where that is zero."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    unit: NDArray[np.float64] = mean / (np.linalg.norm(mean) or 1.0)
    return unit.astype(np.float32)


def nearest_documents(hits: Sequence[Hit], doc: int, owners: ChunkOwners, wanted: int) -> list[tuple[int, int, Hit]]:
    """(document, rank, hit) of the first chunk of each other document among the hits, at most ``wanted``."""
    found: dict[int, tuple[int, int, Hit]] = {}
    for rank, hit in enumerate(hits):
        other = int(owners.doc_of[hit.chunk])
        if other != doc and other not in found:
            found[other] = (other, rank, hit)
        if len(found) == wanted:
            break
    return list(found.values())


@step("neighbours", code_version=1)
def find_neighbours(home: Home, inputs: NeighbourInputs, config: KnnOptions) -> dict[str, Ref]:
    """The nearest other documents of each document: table ``neighbours``, in the round's order, nearest first.

    A document without a chunk has none. Raises ``InputError`` when the round's documents can't give the samples wanted.
    """
    key = find_neighbours.key(inputs, config)
    documents = RoundDocuments.open(home, inputs, config.seed)
    documents.check_supply(most_tokens, config)
    stop = documents_needed(documents) if inputs.stop is None else inputs.stop
    rows = [document.row for document in documents.listed[inputs.first : stop]]
    index = index_for(home, documents.corpus, inputs.index)
    owners = ChunkOwners(home, documents.corpus.chunks)

    def found() -> Iterator[dict[str, Any]]:
        with progress("neighbours", total=len(rows), unit="documents") as advance:
            for start in range(0, len(rows), DOCUMENTS_PER_SEARCH):
                part = rows[start : start + DOCUMENTS_PER_SEARCH]
                yield from _neighbours_of(part, index, owners, config.neighbours)
                advance(len(part))

    return {"neighbours": write_table(home.path, work_uri(key, "neighbours"), NEIGHBOURS, found())}


def _neighbours_of(
    docs: Sequence[int], index: VectorIndex, owners: ChunkOwners, wanted: int
) -> Iterator[dict[str, Any]]:
    own = {doc: chunks for doc in docs if (chunks := owners.chunks_of(doc))}
    if not own:
        return
    queries = np.stack([mean_vector(index.vectors_of(chunks)) for chunks in own.values()])
    longest = max(map(len, own.values()))
    answers = index.search(queries, min(len(owners), CHUNKS_PER_NEIGHBOUR * wanted + longest))
    for doc, query, answer in zip(own, queries, answers, strict=True):
        hits = answer
        nearest = nearest_documents(hits, doc, owners, wanted)
        while len(nearest) < wanted and len(hits) < len(owners):
            (hits,) = index.search(query[None], min(len(owners), 2 * len(hits)))
            nearest = nearest_documents(hits, doc, owners, wanted)
        for other, rank, hit in nearest:
            yield {"doc": doc, "neighbour": other, "rank": rank, "score": hit.score}
