"""Fillers: random chunks that stand where hard negatives would, for controls and for recipes without negatives.

In ``random-filler`` they take the negatives' place one for one: what hard negatives add is the difference. In a recipe
of positives only they fill what is left of a sample, because a root or a positive is never cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from storage.checkpoints import work_uri
from storage.corpora import corpus_to_read
from storage.home import Home
from storage.refs import Ref
from storage.schemas import NEGATIVES
from storage.tables import read_table, write_table
from tasks.checkpointed import step
from tasks.screening.passages import Passages
from tasks.screening.retrieval import exclusion


class FillersConfig(BaseModel):
    """How many random chunks a positive brings, and which may not stand before its root."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(16, ge=1, description="Random chunks drawn per positive. [ours 6]")
    copy_characters: int = Field(
        64, ge=8, description="A chunk that shares a run of so many characters with the root is left out. [ours 2.4]"
    )
    seed: int = Field(0, description="Salt of the draw. [ours 6]")


class FillersInputs(BaseModel):
    """Verdicts of a shard, and the corpus the chunks are drawn from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdicts: Ref
    roots: Ref
    corpus: str


@step("fillers", code_version=1)
def draw_fillers(home: Home, inputs: FillersInputs, config: FillersConfig) -> dict[str, Ref]:
    """Random chunks for each root's positives under the rules for candidates: table ``negatives`` without scores."""
    key = draw_fillers.key(inputs, config)
    kept = read_table(home.path, inputs.verdicts, ["root", "chunk", "kept"]).filter(pl.col("kept"))
    rows: list[dict[str, Any]] = []
    if len(kept):
        corpus = corpus_to_read(home, inputs.corpus)
        passages = Passages(home, roots=inputs.roots, chunks=corpus.chunks, documents=corpus.documents)
        for root, seeds in kept.unique(["root", "chunk"]).sort("root", "chunk").group_by("root", maintain_order=True):
            positives = seeds["chunk"].to_list()
            for seed in positives:
                rows.extend(_drawn(int(root[0]), seed, positives, passages, config))
        passages.close()
    return {"negatives": write_table(home.path, work_uri(key, "negatives"), NEGATIVES, rows)}


def _drawn(
    root: int, seed: int, positives: Collection[int], passages: Passages, config: FillersConfig
) -> Iterator[dict[str, Any]]:
    salt = f"{config.seed}:{passages.root(root).root_id}:{passages.chunk(seed).chunk_id}"
    seen: set[int] = set()
    for draw in range(8 * config.depth):
        if len(seen) == config.depth:
            return
        number = int.from_bytes(hashlib.sha256(f"filler:{salt}:{draw}".encode()).digest()[:8], "big")
        chunk = number % passages.chunk_count
        if chunk in seen:
            continue
        reason = "positive" if chunk in positives else exclusion(passages, root, chunk, config.copy_characters)
        yield {
            "root": root,
            "seed_chunk": seed,
            "chunk": chunk,
            "rank": len(seen),
            "score": None,
            "max_gain": None,
            "kept": reason is None,
            "reason": reason,
        }
        seen.add(chunk)
