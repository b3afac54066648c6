"""The last step of an ingest: the corpus's manifest, with everything its content depends on and what was counted."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from models.embedders import EmbedderConfig
from storage.corpora import publish_corpus
from storage.home import Home
from storage.refs import Ref
from storage.tables import open_table, read_table
from tasks.corpus.counts import read_counts
from tasks.corpus.ingestion import IngestConfig
from tasks.corpus.quarantine import count_reasons
from tasks.corpus.reading import ReadInputs
from tasks.corpus.splitting import PARTS

LIBRARIES = ("numpy", "sentence-transformers", "tokenizers", "torch", "transformers")
"""Libraries whose version can change a vector or a cut."""


class CorpusParts(BaseModel):
    """Everything the steps of an ingest made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: Ref
    quarantine: Ref
    chunks: Ref
    tokens: Ref
    vectors: tuple[Ref, ...]
    counts: tuple[Ref, ...]
    tokenizer: str
    embedder: str

    def tables(self) -> dict[str, Ref]:
        """The tables by the name their file will have."""
        vectors = {f"vectors-{number:05d}": ref for number, ref in enumerate(self.vectors)}
        named = {"documents": self.documents, "chunks": self.chunks, "tokens": self.tokens}
        return {**named, "quarantine": self.quarantine, **vectors}


def publish(home: Home, config: IngestConfig, inputs: ReadInputs, parts: CorpusParts) -> str:
    """Puts the corpus in its place under its digest and returns that; may be repeated."""
    counts = _counts(home, parts)
    source: dict[str, Any] = {"files": [list(file) for file in inputs.files], "packages": inputs.packages}
    description = {
        "source": {**source, "benchmarks": [list(file) for file in inputs.benchmarks]},
        "reading": config.reading.facts(),
        "separation": config.separation.model_dump(mode="json"),
        "chunking": {**config.chunking.model_dump(mode="json", exclude={"tokenizer"}), "tokenizer": parts.tokenizer},
        "embedder": _embedder_facts(config.embedder, parts.embedder, counts),
        "chunks_per_shard": config.chunks_per_shard,
        "counts": counts,
    }
    return publish_corpus(home, description, parts.tables())


def _embedder_facts(config: EmbedderConfig, digest: str, counts: dict[str, Any]) -> dict[str, Any]:
    """What the vectors depend on; a folder's path is left out, its digest says it better."""
    return {
        "digest": digest,
        "dimension": counts.pop("embedder_dimension"),
        "limit": counts.pop("embedder_limit"),
        "dtype": config.dtype,
        "batch_size": config.batch_size,
        "threads": config.threads,
        "device": config.device.split(":")[0],
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def _counts(home: Home, parts: CorpusParts) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    for ref in parts.counts:
        counts.update(read_counts(home, ref))
    counts.pop("refused")
    by_part: dict[str, dict[str, int]] = {part: {"documents": 0, "characters": 0} for part in PARTS}
    for part, documents, characters in _sizes(home, parts.documents):
        by_part[part]["documents"] += documents
        by_part[part]["characters"] += characters
    truncated = pl.concat([read_table(home.path, ref, ["truncated"]) for ref in parts.vectors])["truncated"]
    reasons = read_table(home.path, parts.quarantine, ["reason"])["reason"]
    return {
        **counts,
        "documents": parts.documents.rows,
        "parts": by_part,
        "quarantine": count_reasons(reasons.to_list()),
        "truncated_chunks": int((truncated > 0).sum()),
        "truncated_pieces": int(truncated.sum()),
    }


def _sizes(home: Home, documents: Ref) -> list[tuple[str, int, int]]:
    """(part, documents, characters) of each few documents, so that memory stays bounded."""
    sizes: list[tuple[str, int, int]] = []
    with open_table(home.path, documents) as file:
        for batch in file.iter_batches(batch_size=64, columns=["part", "text"]):
            frame = pl.DataFrame(pl.from_arrow(batch))
            grouped = frame.group_by("part").agg(pl.len(), pl.col("text").str.len_chars().sum().alias("characters"))
            sizes += [(str(part), int(count), int(characters)) for part, count, characters in grouped.rows()]
    return sizes
