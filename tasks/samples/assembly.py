"""Samples: positives and hard negatives shuffled together, roots last, exactly so many tokens (docs/method.md 2.7)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.policy import load_tokenizer
from storage.checkpoints import work_uri
from storage.corpora import open_corpus
from storage.digests import digest_json
from storage.home import Home
from storage.refs import Ref
from storage.schemas import SAMPLES, UNPLACED
from storage.tables import read_table, write_table
from tasks.checkpointed import step
from tasks.progress import progress
from tasks.resources import PolicyInputs, bos_ids
from tasks.samples.bundles import Bundle, bundles_of
from tasks.samples.packing import Draft, Measures, Packer
from tasks.screening.passages import Passages
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
    tokenizer = load_tokenizer(Path(inputs.policy.folder), remote_code=inputs.policy.remote_code)
    corpus = open_corpus(home, inputs.corpus)
    passages = Passages(home, roots=inputs.roots, chunks=corpus.chunks, documents=corpus.documents, tokenizer=tokenizer)
    bos, separator = bos_ids(tokenizer), separator_ids(tokenizer, inputs.separator)
    counted = corpus.manifest.get("chunking", {}).get("tokenizer") == inputs.tokenizer
    uses: Counter[int] = Counter()
    packer = Packer(
        target=config.target_tokens,
        negatives_per_positive=inputs.negatives_per_positive,
        measures=Measures(
            root_tokens=lambda row: len(passages.root(row).ids),
            chunk_tokens=(lambda row: passages.chunk_size(row)[1])
            if counted
            else (lambda row: len(passages.chunk_ids(row))),
            root_doc=lambda row: passages.root(row).doc,
            chunk_doc=lambda row: passages.chunk_size(row)[0],
            bos=len(bos),
            separator=len(separator),
        ),
        usable=lambda chunk: uses[chunk] < config.reuse_cap,
    )

    def samples() -> Iterator[dict[str, Any]]:
        total = sum(stop - first for first, stop in inputs.shards)
        with progress("assembly", total=total, unit="roots") as advance:
            for number, draft in enumerate(_drafts(home, inputs, packer, advance)):
                uses.update([*draft.positives, *draft.negatives])
                passages.tokenise([*draft.positives, *draft.negatives])
                yield layout_sample(draft, number, passages, bos, separator, config, inputs.fill)

    written = write_table(home.path, work_uri(key, "samples"), SAMPLES, samples())
    unplaced = (
        {"root": u.root, "kind": u.kind, "chunk": u.chunk, "doc": None, "tokens": u.tokens, "reason": u.reason}
        for u in packer.unplaced
    )
    left = write_table(home.path, work_uri(key, "unplaced"), UNPLACED, unplaced)
    passages.close()
    return {"samples": written, "unplaced": left}


def _drafts(home: Home, inputs: AssemblyInputs, packer: Packer, advance: Any) -> Iterator[Draft]:
    """Drafts in order, with a bounded queue of bundles read shard by shard; what the budget leaves is reported."""
    queue: list[Bundle] = []
    left = inputs.samples
    for bundle in _bundles(home, inputs):
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


def _bundles(home: Home, inputs: AssemblyInputs) -> Iterator[Bundle]:
    for (first, stop), verdicts, negatives in zip(inputs.shards, inputs.verdicts, inputs.negatives, strict=True):
        yield from bundles_of(range(first, stop), read_table(home.path, verdicts), read_table(home.path, negatives))


def layout_sample(
    draft: Draft,
    number: int,
    passages: Passages,
    bos: Sequence[int],
    separator: Sequence[int],
    config: AssemblyConfig,
    fill: str = "negative",
) -> dict[str, Any]:
    """One row of ``samples``: order, cuts, absolute token positions and dependencies of a full draft.

    A dependency's ``position`` is the index of its token in the sample, its ``distance`` the tokens from the end of
    the chunk's segment to it.
    """
    shuffle = random.Random(f"{config.seed}:{number}:{draft.roots[0].root}")
    order = _order(draft, shuffle, config.layout, fill)
    cuts = _cuts(draft, order, passages)
    ids: list[int] = list(bos)
    segments: list[dict[str, Any]] = []
    chunk_end: dict[int, int] = {}
    root_start: dict[int, int] = {}
    for place, (kind, row) in enumerate(order):
        if place:
            ids.extend(separator)
        start = len(ids)
        if kind == "root":
            root = passages.root(row)
            tokens, doc, skipped = root.ids, root.doc, 0
            root_start[row] = start
        else:
            skipped = cuts.get(row, 0)
            tokens, doc = passages.chunk_ids(row)[skipped:], passages.chunk(row).doc
            chunk_end[row] = start + len(tokens)
        ids.extend(tokens)
        segments.append(
            {
                "kind": kind,
                "root_id": passages.root(row).root_id if kind == "root" else None,
                "chunk_id": None if kind == "root" else passages.chunk(row).chunk_id,
                "doc_id": passages.doc_id(doc),
                "start": start,
                "end": len(ids),
                "source_start": skipped,
            }
        )
    dependencies = _dependencies(draft, passages, root_start, chunk_end)
    assert len(ids) == config.target_tokens, f"sample {number} has {len(ids)} tokens, expected {config.target_tokens}"
    return {
        "sample_id": digest_json([ids, segments]),
        "input_ids": ids,
        "length": len(ids),
        "segments": segments,
        "dependencies": dependencies,
    }


def _order(draft: Draft, shuffle: random.Random, layout: str, fill: str) -> list[tuple[str, int]]:
    """(kind, row) of every segment in order: contexts shuffled together, then roots; or group by group."""
    if layout == "global":
        contexts = [("positive", c) for c in draft.positives] + [(fill, c) for c in draft.negatives]
        shuffle.shuffle(contexts)
        return contexts + [("root", bundle.root) for bundle in draft.roots]
    order: list[tuple[str, int]] = []
    for bundle in draft.roots:
        group = [("positive", c) for c, users in draft.positives.items() if users[0][0] == bundle.root]
        group += [(fill, c) for c, root in draft.negatives.items() if root == bundle.root]
        shuffle.shuffle(group)
        order += [*group, ("root", bundle.root)]
    return order


def _cuts(draft: Draft, order: Sequence[tuple[str, int]], passages: Passages) -> dict[int, int]:
    """Tokens cut from the front of the first segments that carry no dependency, until the target is met."""
    surplus, cuts = -draft.room, {}
    for kind, row in order:
        if row in draft.negatives and kind != "root" and surplus > 0:
            cuts[row] = min(surplus, len(passages.chunk_ids(row)) - 1)
            surplus -= cuts[row]
    return cuts


def _dependencies(
    draft: Draft, passages: Passages, root_start: dict[int, int], chunk_end: dict[int, int]
) -> list[dict[str, Any]]:
    found = [
        {
            "root_id": passages.root(root).root_id,
            "t": dependency.t,
            "position": root_start[root] + dependency.t,
            "chunk_id": passages.chunk(chunk).chunk_id,
            "distance": root_start[root] + dependency.t - chunk_end[chunk],
            "entropy_before": dependency.entropy_before,
            "entropy_after": dependency.entropy_after,
            "gain": dependency.gain,
        }
        for chunk, users in draft.positives.items()
        for root, context in users
        for dependency in context.dependencies
    ]
    return sorted(found, key=lambda row: (row["position"], row["chunk_id"]))
