"""Hard negatives: neighbours of the verified positives, found by a second retrieval (docs/method.md 2.6).

They are not the candidates that failed verification, and the paper does not verify that they are unhelpful.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from storage.checkpoints import work_uri
from storage.corpora import corpus_to_read
from storage.home import Home
from storage.refs import Ref
from storage.schemas import NEGATIVES
from storage.tables import read_table, write_table
from storage.vectors import Hit, IndexConfig
from tasks.checkpointed import step
from tasks.corpus.overlap import RunIndex
from tasks.resources import index_for
from tasks.screening.passages import Passages
from tasks.screening.retrieval import exclusion


class NegativesConfig(BaseModel):
    """How neighbours of positives become hard negatives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    negatives_per_positive: int = Field(
        1, ge=0, description="Hard negatives that each positive brings along. [ours 2.6]"
    )
    depth: int = Field(
        16,
        ge=1,
        description="Neighbours looked at per positive; those beyond negatives_per_positive are spares. [ours 2.6]",
    )
    copy_characters: int = Field(
        64, ge=8, description="A shared run of so many characters makes a near-duplicate. [ours 2.6]"
    )
    copy_cosine: float = Field(0.97, gt=0, le=1, description="A cosine above this makes a near-duplicate. [ours 2.6]")


class NegativesInputs(BaseModel):
    """Verdicts of a shard, and the corpus and index the neighbours come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdicts: Ref
    roots: Ref
    corpus: str
    index: IndexConfig = Field(exclude=True)
    exact: bool = True


@step("negatives", code_version=1)
def find_negatives(home: Home, inputs: NegativesInputs, config: NegativesConfig) -> dict[str, Ref]:
    """The nearest neighbours of each root's positives with the reason of those that can't be used: table
    ``negatives``.
    """
    key = find_negatives.key(inputs, config)
    kept = read_table(home.path, inputs.verdicts, ["root", "chunk", "kept"]).filter(pl.col("kept"))
    rows: list[dict[str, Any]] = []
    if len(kept) and config.negatives_per_positive:
        corpus = corpus_to_read(home, inputs.corpus)
        passages = Passages(home, roots=inputs.roots, chunks=corpus.chunks, documents=corpus.documents)
        index = index_for(home, corpus, inputs.index)
        for root, seeds in kept.unique(["root", "chunk"]).sort("root", "chunk").group_by("root", maintain_order=True):
            positives = seeds["chunk"].to_list()
            vectors = index.vectors_of(positives)
            found = index.search(vectors, config.depth + 1)
            for seed, hits in zip(positives, found, strict=True):
                rows.extend(_neighbours(int(root[0]), seed, hits, positives, passages, config))
        passages.close()
    return {"negatives": write_table(home.path, work_uri(key, "negatives"), NEGATIVES, rows)}


def _neighbours(
    root: int, seed: int, hits: Iterable[Hit], positives: Collection[int], passages: Passages, config: NegativesConfig
) -> Iterable[dict[str, Any]]:
    seed_runs = RunIndex(passages.chunk(seed).text, length=config.copy_characters)
    others = [hit for hit in hits if hit.chunk != seed][: config.depth]
    for rank, hit in enumerate(others):
        reason = exclusion(passages, root, hit.chunk, config.copy_characters)
        if hit.chunk in positives:
            reason = "positive"
        elif hit.score > config.copy_cosine or seed_runs.shares(passages.windows(hit.chunk, config.copy_characters)):
            reason = "near-duplicate"
        yield {
            "root": root,
            "seed_chunk": seed,
            "chunk": hit.chunk,
            "rank": rank,
            "score": hit.score,
            "max_gain": None,
            "kept": reason is None,
            "reason": reason,
        }
