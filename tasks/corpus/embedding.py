"""Chunks into vectors, a shard at a time; a finished shard is never embedded again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.embedders import Embedder, EmbedderConfig, load_embedder
from storage.checkpoints import work_uri
from storage.home import Home
from storage.refs import Ref
from storage.schemas import VECTORS
from storage.tables import ROWS_PER_GROUP, open_table, write_table
from storage.vectors import vectors_array
from tasks.checkpointed import step
from tasks.progress import progress


class EmbedInputs(BaseModel):
    """Rows [start, stop) of a chunks table, and the embedder by digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chunks: Ref
    start: int
    stop: int
    embedder: str
    embedder_config: EmbedderConfig = Field(exclude=True)


class EmbedNumerics(BaseModel):
    """The part of ``EmbedderConfig`` that can change the last bits of a vector and is not in the embedder's digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int
    threads: int
    device: str

    @classmethod
    def of(cls, config: EmbedderConfig) -> EmbedNumerics:
        """The numerics of an embedder's configuration; of the device only its kind."""
        return cls(batch_size=config.batch_size, threads=config.threads, device=config.device.split(":")[0])


@step("ingest-embed", code_version=1)
def embed_shard(home: Home, inputs: EmbedInputs, config: EmbedNumerics) -> dict[str, Ref]:
    """Embeds the passages of a shard, batches sorted by length and formed inside the shard only."""
    embedder = load_embedder(inputs.embedder_config)
    texts = list(_texts(home, inputs))
    description = f"embedding chunks {inputs.start:,} to {inputs.stop:,} of {inputs.chunks.rows:,}"
    with progress(description, total=len(texts), unit="chunks") as advance:
        vectors = embedder.encode(texts, "passage", advance=advance)
    frame = pl.DataFrame(
        {
            "chunk": np.arange(inputs.start, inputs.stop, dtype=np.int32),
            "truncated": cut_off(embedder, texts),
            "vector": pl.from_arrow(vectors_array(vectors)),
        }
    )
    key = embed_shard.key(inputs, config)
    return {"vectors": write_table(home.path, work_uri(key, "vectors"), VECTORS, frame)}


def cut_off(embedder: Embedder, texts: list[str]) -> NDArray[np.int32]:
    """Word pieces of each text that the embedder did not read, int32 ``[n]``."""
    return np.maximum(np.asarray(embedder.lengths(texts), dtype=np.int32) - embedder.limit, 0)


def shards(rows: int, per_shard: int) -> list[tuple[int, int]]:
    """[start, stop) of each shard."""
    return [(start, min(start + per_shard, rows)) for start in range(0, rows, per_shard)]


def _texts(home: Home, inputs: EmbedInputs) -> Iterator[str]:
    first, last = inputs.start // ROWS_PER_GROUP, (inputs.stop - 1) // ROWS_PER_GROUP
    with open_table(home.path, inputs.chunks) as file:
        texts = file.read_row_groups(list(range(first, last + 1)), columns=["text"]).column("text").to_pylist()
    yield from texts[inputs.start - first * ROWS_PER_GROUP : inputs.stop - first * ROWS_PER_GROUP]
