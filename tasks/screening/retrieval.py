"""Candidates: the chunks nearest to each uncertain position, with what may not be used marked (docs/method.md 2.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from models.embedders import EmbedderConfig
from storage.checkpoints import work_uri
from storage.corpora import open_corpus
from storage.errors import ConfigError
from storage.home import Home
from storage.refs import Ref
from storage.schemas import CANDIDATES
from storage.tables import read_table, write_table
from storage.vectors import Hit, IndexConfig
from tasks.checkpointed import step
from tasks.progress import progress
from tasks.resources import embedder_for, index_for
from tasks.screening.passages import Passages


class RetrievalConfig(BaseModel):
    """How many candidates a position gets and which are excluded before verification."""

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
    if passages.runs(root, copy_characters).shares(passages.chunk(chunk).text):
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
    corpus = open_corpus(home, inputs.corpus)
    rows: list[dict[str, Any]] = []
    if len(frame):
        passages = Passages(home, roots=inputs.roots, chunks=corpus.chunks, documents=corpus.documents)
        index = index_for(home, corpus, inputs.index)
        embedder = embedder_for(inputs.embedder)
        if embedder.digest != corpus.embedder_digest:
            raise ConfigError(
                f"embedder {inputs.embedder.model} has digest {embedder.digest[:12]}, the corpus was embedded with"
                f" {corpus.embedder_digest[:12]}.",
                hint="Set corpus.embedder as it was at ingest, or ingest again.",
            )
        queries = embedder.encode(frame["query"].to_list(), "query")
        with progress("retrieval", total=len(frame), unit="queries") as advance:
            for start in range(0, len(frame), 256):
                hits = index.search(queries[start : start + 256], round(config.top_k * config.overfetch))
                rows.extend(_rows(frame[start : start + 256], hits, passages, config))
                advance(len(hits))
        passages.close()
    return {"candidates": write_table(home.path, work_uri(key, "candidates"), CANDIDATES, rows)}


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
