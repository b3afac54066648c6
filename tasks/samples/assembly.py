"""Samples: positives and hard negatives shuffled together, roots last, exactly so many tokens (docs/method.md 2.7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from models.policy import load_tokenizer
from storage.checkpoints import work_uri
from storage.corpora import corpus_to_read
from storage.home import Home
from storage.refs import Ref
from storage.schemas import SAMPLES, UNPLACED
from storage.tables import read_table, write_batches, write_table
from tasks.checkpointed import step
from tasks.progress import progress
from tasks.resources import PolicyInputs, bos_ids
from tasks.samples.bundles import NEGATIVE_COLUMNS, VERDICT_COLUMNS, Bundle, bundles_of
from tasks.samples.layout import Layout
from tasks.samples.origins import Origins, open_chunks
from tasks.samples.packing import Draft, Measures, Packer, Unplaced
from tasks.screening.verification import separator_ids

_MOST_WAITING = 4096
"""Most roots that wait for a sample: bounds memory and time at any size of a round."""


class AssemblyConfig(BaseModel):
    """How samples are made of roots, positives and negatives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target_tokens: int = Field(131072, ge=128, description="Tokens of every sample. [paper 4]")
    layout: Literal["global", "grouped"] = Field(
        "global",
        description="global: all contexts shuffled, then the roots; grouped: each root behind its own contexts."
        " [ours 2.7]",
    )
    reuse_cap: int = Field(16, ge=1, description="Most samples of a round in which one chunk may stand. [ours 2.7]")
    seed: int = Field(0, description="Seed of the shuffles. [ours 2.7]")


class AssemblyInputs(BaseModel):
    """The verdicts and negatives of a round, shard by shard, and what their rows mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shards: tuple[tuple[int, int], ...] = Field(description="First and stop row of each shard's roots.")
    verdicts: tuple[Ref, ...]
    negatives: tuple[Ref, ...]
    roots: Ref
    corpus: str
    tokenizer: str = Field(description="Digest of the tokenizer's files.")
    separator: str
    negatives_per_positive: int
    fill: Literal["negative", "filler"] = Field("negative", description="What the rows of ``negatives`` are.")
    samples: int | None = Field(None, description="Most samples: the round's budget; None: as many as there are.")
    policy: PolicyInputs = Field(exclude=True)


@step("assembly", code_version=3)
def assemble(home: Home, inputs: AssemblyInputs, config: AssemblyConfig) -> dict[str, Ref]:
    """Packs the round's bundles into samples: tables ``samples`` and ``unplaced``."""
    key = assemble.key(inputs, config)
    policy = inputs.policy
    bos, separator = _special_ids(policy.folder, inputs.tokenizer, policy.remote_code, inputs.separator)
    tokenizer = partial(load_tokenizer, Path(policy.folder), remote_code=policy.remote_code)
    corpus = corpus_to_read(home, inputs.corpus)
    origins = Origins(home, corpus, inputs.roots, open_chunks(home, corpus, inputs.roots, tokenizer, inputs.tokenizer))
    layout = Layout(
        origins,
        bos=bos,
        separator=separator,
        target=config.target_tokens,
        grouped=config.layout == "grouped",
        seed=config.seed,
        fill=inputs.fill,
    )
    uses: Counter[int] = Counter()
    spent: set[int] = set()
    packer = Packer(
        target=config.target_tokens,
        negatives_per_positive=inputs.negatives_per_positive,
        measures=Measures(
            root_tokens=origins.root_sizes,
            chunk_tokens=origins.chunk_sizes,
            root_doc=origins.root_docs,
            chunk_doc=origins.chunk_docs,
            bos=len(bos),
            separator=len(separator),
        ),
        spent=spent,
    )

    def samples() -> Iterator[pa.RecordBatch]:
        total = sum(stop - first for first, stop in inputs.shards)
        with progress("assembly", total=total, unit="roots") as advance:
            for number, draft in enumerate(_drafts(_bundles(home, inputs, origins), inputs.samples, packer, advance)):
                used = [*draft.positives, *draft.negatives]
                uses.update(used)
                spent.update([chunk for chunk in used if uses[chunk] >= config.reuse_cap])
                origins.chunks.expect(used)
                yield layout.row(draft, number)

    written = write_batches(home.path, work_uri(key, "samples"), SAMPLES, samples())
    left = write_table(home.path, work_uri(key, "unplaced"), UNPLACED, _unplaced(packer.unplaced))
    origins.close()
    return {"samples": written, "unplaced": left}


@lru_cache(maxsize=64)
def _special_ids(folder: str, tokenizer: str, remote_code: bool, separator: str) -> tuple[Sequence[int], Sequence[int]]:
    """BOS and separator of the tokenizer in a folder; its digest tells one that was changed from what it was."""
    loaded = load_tokenizer(Path(folder), remote_code=remote_code)
    return bos_ids(loaded), separator_ids(loaded, separator)


def _drafts(bundles: Iterable[Bundle], most: int | None, packer: Packer, advance: Any) -> Iterator[Draft]:
    """Drafts in order, with a bounded queue of bundles; what the budget of ``most`` samples leaves is reported."""
    queue: list[Bundle] = []
    left = most
    for bundle in bundles:
        advance(1)
        if not bundle.contexts:
            packer.report_empty(bundle)
        elif left == 0:
            packer.report_root(bundle, "budget")
        else:
            queue.append(bundle)
        while left != 0 and (packer.has_enough(queue) or len(queue) >= _MOST_WAITING):
            draft = packer.pack_one(queue)
            if draft is not None:
                left = None if left is None else left - 1
                yield draft
    while left != 0 and (draft := packer.pack_one(queue)) is not None:
        left = None if left is None else left - 1
        yield draft
    for bundle in queue:
        packer.report_root(bundle, "budget")


def _bundles(home: Home, inputs: AssemblyInputs, origins: Origins) -> Iterator[Bundle]:
    """The bundles of all roots, read shard by shard; their chunks are looked up a shard at once."""
    for (first, stop), judged, near in zip(inputs.shards, inputs.verdicts, inputs.negatives, strict=True):
        verdicts = read_table(home.path, judged, VERDICT_COLUMNS)
        negatives = read_table(home.path, near, NEGATIVE_COLUMNS)
        bundles = list(bundles_of(range(first, stop), verdicts, negatives))
        origins.look_up({c for b in bundles for context in b.contexts for c in (context.chunk, *context.negatives)})
        yield from bundles


def _unplaced(found: Sequence[Unplaced]) -> pl.DataFrame:
    """Rows of ``unplaced``."""
    columns = {name: [row[place] for row in found] for place, name in enumerate(Unplaced._fields)}
    return pl.DataFrame({**columns, "doc": [None] * len(found)})
