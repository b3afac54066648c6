"""The chunks table: pieces of the screened documents that fit the policy and the embedder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from models.embedders import EmbedderConfig, load_embedder
from storage.checkpoints import work_uri
from storage.digests import digest_json
from storage.errors import InputError
from storage.home import Home
from storage.refs import Ref
from storage.schemas import CHUNKS
from storage.tables import write_table
from tasks.checkpointed import step
from tasks.corpus.chunking import Chunker, ChunkingConfig
from tasks.corpus.counts import write_counts
from tasks.corpus.document_table import StoredDocument, stream_documents
from tasks.corpus.tokenizing import tokenizing
from tasks.progress import progress


class ChunkInputs(BaseModel):
    """What chunks are made of, and the digests of the two tokenizers they must fit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: Ref
    tokenizer: str
    embedder: str
    tokenizer_folder: str = Field(exclude=True)
    embedder_config: EmbedderConfig = Field(exclude=True)


class ChunkLimits(BaseModel):
    """The part of ``ChunkingConfig`` that decides where a text is cut."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int
    min_tokens: int
    min_fill: float

    @classmethod
    def of(cls, config: ChunkingConfig) -> ChunkLimits:
        """Without the name of the tokenizer, which counts by its digest; the largest chunk must be decided."""
        assert config.max_tokens is not None, "call ChunkingConfig.fitted first"
        return cls(max_tokens=config.max_tokens, min_tokens=config.min_tokens, min_fill=config.min_fill)


class _Counts:
    """What the chunker did, for the manifest."""

    def __init__(self) -> None:
        self.values = {
            "documents": 0,
            "chunks": 0,
            "chunk_tokens": 0,
            "crumbs": 0,
            "crumb_tokens": 0,
            "crumb_characters": 0,
        }

    def add(self, **more: int) -> None:
        for name, value in more.items():
            self.values[name] += value


@step("ingest-chunk", code_version=1)
def chunk_documents(home: Home, inputs: ChunkInputs, config: ChunkLimits) -> dict[str, Ref]:
    """Cuts the documents of part ``screen``; raises ``InputError`` when nothing is left to index."""
    key = chunk_documents.key(inputs, config)
    embedder = load_embedder(inputs.embedder_config)
    chunking = ChunkingConfig(**config.model_dump())
    chunker = Chunker(tokenizing(Path(inputs.tokenizer_folder)), embedder.lengths, embedder.limit, chunking)
    counts = _Counts()
    with progress("cutting documents into chunks", total=inputs.documents.rows, unit="documents") as advance:

        def rows() -> Iterator[dict[str, Any]]:
            for document in stream_documents(home, inputs.documents):
                if document.part == "screen":
                    yield from _chunks_of(document, chunker, config.min_tokens, counts)
                advance(1)

        table = write_table(home.path, work_uri(key, "chunks"), CHUNKS, rows())
    if not table.rows:
        raise InputError(
            "the corpus has no chunk to index: no document of part 'screen' has one of"
            f" {config.min_tokens} tokens or more.",
            hint="Add text, lower chunking.min_tokens, or change the shares of the split.",
        )
    facts = {**counts.values, "embedder_dimension": embedder.dimension, "embedder_limit": embedder.limit}
    return {"chunks": table, "counts": write_counts(home, key, facts)}


def _chunks_of(
    document: StoredDocument, chunker: Chunker, min_tokens: int, counts: _Counts
) -> Iterator[dict[str, Any]]:
    counts.add(documents=1)
    ordinal = 0
    for span in chunker.spans(document.text):
        if span.tokens < min_tokens:
            counts.add(crumbs=1, crumb_tokens=span.tokens, crumb_characters=span.end - span.start)
            continue
        counts.add(chunks=1, chunk_tokens=span.tokens)
        yield {
            "chunk_id": digest_json([document.doc_id, span.start, span.end]),
            "doc": document.number,
            "ordinal": ordinal,
            "char_start": span.start,
            "char_end": span.end,
            "tokens": span.tokens,
            "text": document.text[span.start : span.end],
        }
        ordinal += 1
