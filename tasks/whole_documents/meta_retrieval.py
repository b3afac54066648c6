"""Hard negatives of NExtLong: the chunks nearest to each meta-chunk (docs/method.md 3, recipe ``nextlong``).

The whole meta-chunk is the query, so a candidate's ``t`` is 0. Chunks of its own document are excluded [inferred].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from models.embedders import EmbedderConfig
from storage.checkpoints import work_uri
from storage.corpora import corpus_to_read
from storage.errors import ConfigError
from storage.home import Home
from storage.refs import Ref
from storage.schemas import CANDIDATES
from storage.tables import write_table
from storage.vectors import IndexConfig
from tasks.checkpointed import step
from tasks.corpus.chunk_owners import ChunkOwners
from tasks.progress import progress
from tasks.resources import embedder_for, index_for
from tasks.screening.passages import Passages
from tasks.screening.retrieval import Excludes, choose_candidates
from tasks.whole_documents.nextlong import MetaChunk, NextLongOptions, Plan, plans_of

QUERIES_PER_SEARCH = 64
"""Meta-chunks looked up at once."""


class MetaRetrievalInputs(BaseModel):
    """A shard of meta-chunks, and the corpus, embedder and index they are looked up in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    roots: Ref
    first_root: int = Field(ge=0, description="First row of the shard.")
    stop_root: int = Field(description="Row behind the last.")
    corpus: str = Field(description="Digest of the corpus; it includes the embedder's.")
    target_tokens: int = Field(ge=2, description="Tokens of every sample.")
    embedder: EmbedderConfig = Field(exclude=True)
    index: IndexConfig = Field(exclude=True)
    exact: bool = True


def stored_plans(home: Home, roots: Ref, target: int, options: NextLongOptions) -> Iterator[Plan]:
    """The plans of all documents in a roots table, in its order."""
    frame = (
        pl.scan_parquet(home / roots.uri, row_index_name="row")
        .select("row", "doc", "char_start", "char_end", pl.col("input_ids").list.len().alias("tokens"))
        .collect(engine="streaming")
    )
    pieces: list[MetaChunk] = []
    last = None
    for row, doc, start, end, tokens in frame.iter_rows():
        if pieces and doc != last:
            yield from plans_of(pieces, target, options)
            pieces = []
        pieces.append(MetaChunk(row, start, end, tokens))
        last = doc
    if pieces:
        yield from plans_of(pieces, target, options)


@step("meta-retrieval", code_version=1)
def retrieve_for_meta_chunks(home: Home, inputs: MetaRetrievalInputs, config: NextLongOptions) -> dict[str, Ref]:
    """The nearest chunks of each meta-chunk, those of its own document marked: table ``candidates``.

    A meta-chunk gets ``overfetch`` times k usable ones; one that makes no sample gets none. Raises ``ConfigError``
    when the embedder is not the one that the corpus was embedded with.
    """
    key = retrieve_for_meta_chunks.key(inputs, config)
    wanted = {
        piece.row: math.ceil(plan.negatives * config.overfetch)
        for plan in stored_plans(home, inputs.roots, inputs.target_tokens, config)
        if plan.negatives >= config.least_negatives
        for piece in plan.pieces
        if inputs.first_root <= piece.row < inputs.stop_root
    }
    corpus = corpus_to_read(home, inputs.corpus)
    passages = Passages(home, roots=inputs.roots, chunks=corpus.chunks, documents=corpus.documents)
    index, embedder = index_for(home, corpus, inputs.index), embedder_for(inputs.embedder)
    if embedder.digest != corpus.embedder_digest:
        raise ConfigError(
            f"embedder {inputs.embedder.model} has digest {embedder.digest[:12]}, the corpus was embedded with"
            f" {corpus.embedder_digest[:12]}.",
            hint="Set corpus.embedder as it was at ingest, or ingest again.",
        )
    owners = ChunkOwners(home, corpus.chunks)

    def rows() -> Iterator[dict[str, Any]]:
        order: Sequence[int] = list(wanted)
        with progress("retrieval", total=len(order), unit="queries") as advance:
            for start in range(0, len(order), QUERIES_PER_SEARCH):
                part = [passages.root(row) for row in order[start : start + QUERIES_PER_SEARCH]]
                top = max(wanted[root.row] + len(owners.chunks_of(root.doc)) for root in part)
                answers = index.search(embedder.encode([root.text for root in part], "query"), min(top, len(owners)))
                for root, hits in zip(part, answers, strict=True):
                    excludes = _own_document(root.doc, owners)
                    for rank, hit, reason in choose_candidates(hits, excludes, wanted[root.row]):
                        candidate = {"chunk": hit.chunk, "rank": rank, "score": hit.score, "excluded": reason}
                        yield {"root": root.row, "t": 0, **candidate}
                advance(len(part))

    try:
        return {"candidates": write_table(home.path, work_uri(key, "candidates"), CANDIDATES, rows())}
    finally:
        passages.close()


def _own_document(doc: int, owners: ChunkOwners) -> Excludes:
    return lambda chunk: "root-document" if owners.doc_of[chunk] == doc else None
