"""Candidates: the chunks nearest to each uncertain position, with what may not be used marked (docs/method.md 2.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from models.embedders import EmbedderConfig
from storage.checkpoints import work_uri
from storage.corpora import Corpus, corpus_to_read
from storage.errors import ConfigError
from storage.home import Home
from storage.refs import Ref
from storage.schemas import CANDIDATES
from storage.tables import read_table, write_table
from storage.vectors import Hit, IndexConfig
from storage.words import Bm25
from tasks.checkpointed import step
from tasks.progress import progress
from tasks.resources import embedder_for, index_for, words_for
from tasks.screening.fusion import HybridSearch
from tasks.screening.passages import Passages

_HYBRID = ("hybrid", "bm25_k1", "bm25_b", "fusion_k")


class RetrievalConfig(BaseModel):
    """How many candidates a position gets, how they are looked up, and which are excluded before verification.

    A retrieval by vectors alone leaves the options of a hybrid one out of its dump, and so out of every digest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    top_k: int = Field(32, ge=1, description="Candidates verified per position. [paper 2.4]")
    overfetch: float = Field(
        2.0,
        ge=1,
        description="Nearest chunks looked at per position, as a multiple of top_k: an excluded one makes room for"
        " the next. 1 takes the top_k nearest and loses the excluded ones. [ours 2.4]",
    )
    copy_characters: int = Field(
        64,
        ge=8,
        description="A chunk that shares a run of so many characters with the root is a copy (white space folded)."
        " [ours 2.4]",
    )
    hybrid: bool = Field(
        False,
        description="Chunks are looked up by the query's words too (BM25), and both lists fused by their ranks."
        " [paper 2.4]",
    )
    bm25_k1: float = Field(
        1.2,
        ge=0,
        allow_inf_nan=False,
        description="With hybrid, how much a repeated word still adds; the BM25 literature's. [ours 2.4]",
    )
    bm25_b: float = Field(
        0.75, ge=0, le=1, description="With hybrid, how far a chunk's length counts; the BM25 literature's. [ours 2.4]"
    )
    fusion_k: int = Field(
        60,
        ge=0,
        description="With hybrid, added to every rank before its reciprocal is taken: Cormack et al. 2009. [ours 2.4]",
    )

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = dump(self)
        return document if self.hybrid else {name: v for name, v in document.items() if name not in _HYBRID}


Excludes = Callable[[int], str | None]


def choose_candidates(hits: Iterable[Hit], excludes: Excludes, top_k: int) -> list[tuple[int, Hit, str | None]]:
    """(rank, hit, reason or None) in rank order until ``top_k`` hits without a reason are found or the hits end."""
    chosen: list[tuple[int, Hit, str | None]] = []
    eligible = 0
    for rank, hit in enumerate(hits):
        if eligible == top_k:
            break
        reason = excludes(hit.chunk)
        eligible += reason is None
        chosen.append((rank, hit, reason))
    return chosen


def exclusion(passages: Passages, root: int, chunk: int, copy_characters: int) -> str | None:
    """Why a chunk may not stand before a root: ``root-document``, ``copy``, or None when it may."""
    if passages.chunk(chunk).doc == passages.root(root).doc:
        return "root-document"
    if passages.runs(root, copy_characters).shares(passages.windows(chunk, copy_characters)):
        return "copy"
    return None


class RetrievalInputs(BaseModel):
    """Positions of a shard, and the corpus, embedder and index they are looked up in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    positions: Ref
    roots: Ref
    corpus: str = Field(description="Digest of the corpus; it includes the embedder's.")
    embedder: EmbedderConfig = Field(exclude=True)
    index: IndexConfig = Field(exclude=True)
    exact: bool = True


@step("retrieval", code_version=1)
def retrieve(home: Home, inputs: RetrievalInputs, config: RetrievalConfig) -> dict[str, Ref]:
    """Embeds each position's query, finds its nearest chunks and marks the excluded ones: table ``candidates``."""
    key = retrieve.key(inputs, config)
    frame = read_table(home.path, inputs.positions, ["root", "t", "query"])
    corpus = corpus_to_read(home, inputs.corpus)
    rows: list[dict[str, Any]] = []
    if len(frame):
        passages = Passages(home, roots=inputs.roots, chunks=corpus.chunks, documents=corpus.documents)
        search = _search(home, corpus, inputs.index, config)
        embedder = embedder_for(inputs.embedder)
        if embedder.digest != corpus.embedder_digest:
            raise ConfigError(
                f"embedder {inputs.embedder.model} has digest {embedder.digest[:12]}, the corpus was embedded with"
                f" {corpus.embedder_digest[:12]}.",
                hint="Set corpus.embedder as it was at ingest, or ingest again.",
            )
        texts = frame["query"].to_list()
        queries = embedder.encode(texts, "query")
        with progress("retrieval", total=len(frame), unit="queries") as advance:
            for start in range(0, len(frame), 256):
                part = slice(start, start + 256)
                hits = search(texts[part], queries[part], round(config.top_k * config.overfetch))
                rows.extend(_rows(frame[part], hits, passages, config))
                advance(len(hits))
        passages.close()
    return {"candidates": write_table(home.path, work_uri(key, "candidates"), CANDIDATES, rows)}


Search = Callable[[Sequence[str], NDArray[np.float32], int], list[list[Hit]]]


def _search(home: Home, corpus: Corpus, engine: IndexConfig, config: RetrievalConfig) -> Search:
    """Hits of queries (texts and unit vectors [n, d]) in the order of their ranks."""
    index = index_for(home, corpus, engine)
    if not config.hybrid:
        return lambda texts, vectors, top: index.search(vectors, top)
    words = words_for(home, corpus, engine, Bm25(config.bm25_k1, config.bm25_b))
    return HybridSearch(index, words, config.fusion_k).search


def _rows(
    frame: pl.DataFrame, hits: Sequence[Sequence[Hit]], passages: Passages, config: RetrievalConfig
) -> Iterable[dict[str, Any]]:
    known: dict[tuple[int, int], str | None] = {}

    def excludes_for(root: int) -> Excludes:
        def excludes(chunk: int) -> str | None:
            if (root, chunk) not in known:
                known[root, chunk] = exclusion(passages, root, chunk, config.copy_characters)
            return known[root, chunk]

        return excludes

    for (root, t), found in zip(frame.select("root", "t").iter_rows(), hits, strict=True):
        for rank, hit, reason in choose_candidates(found, excludes_for(root), config.top_k):
            yield {"root": root, "t": t, "chunk": hit.chunk, "rank": rank, "score": hit.score, "excluded": reason}
