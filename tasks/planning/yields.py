"""What a root gives, for a plan: assumed from the papers' numbers, or measured in a round (docs/method.md 2.2, 2.7)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict, Field

from storage.manifests import Manifest
from tasks.rounds.building import BuildConfig
from tasks.screening.ordering import learning_shards

SEPARATOR_AND_BOS = 2
"""Tokens of a separator and a BOS where no tokenizer is at hand."""
_ASSUMED = "assumed"


class PlanConfig(BaseModel):
    """What a plan assumes where nothing was measured yet. Nothing of it changes a dataset version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    positions_per_root: float = Field(
        292, gt=0, description="Uncertain positions of a root; the papers give 292 without a unit. [inferred 2.2]"
    )
    positives_per_root: float = Field(
        46, gt=0, description="Different chunks that a root keeps; the papers give 46 without a unit. [inferred 2.7]"
    )
    chunk_tokens: float = Field(
        450, gt=0, description="Mean length of a chunk, tokens, at most the largest there is. [inferred 2.7]"
    )
    root_fill: float = Field(
        0.8, gt=0, le=1, description="Mean length of a root over the longest; measured in the quickstart. [ours 2.0]"
    )
    placed_share: float = Field(
        0.6,
        gt=0,
        le=1,
        description="Share of what roots bring that samples hold: a root without a positive brings nothing, and not all"
        " fits; measured in the quickstart. [ours 2.7]",
    )
    distinct_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Different (root, chunk) among the pairs of position and candidate; measured in the quickstart."
        " [ours 2.5]",
    )
    vector_dimension: int = Field(384, ge=1, description="Length of the embedder's vectors. [ours 2.4]")
    peak_tflops: float = Field(
        989, gt=0, description="FLOPs of one GPU, 10^12 a second; that of an H100 or H200 in bfloat16. [ours 6]"
    )
    utilisation: float = Field(0.4, gt=0, le=1, description="Share of the peak that is reached. [ours 6]")


@dataclass(frozen=True, slots=True)
class Yield:
    """What a root gives: assumed, or measured in a round. Numbers are means."""

    positions: float
    candidates: float
    """Verified chunks of a position."""
    positives: float
    """Different chunks that a root keeps."""
    chunk_tokens: float
    root_tokens: float
    distinct_share: float
    placed_share: float
    source: str

    @property
    def is_assumed(self) -> bool:
        """Whether no round has shown it yet."""
        return self.source == _ASSUMED

    @property
    def pairs(self) -> float:
        """Pairs of position and candidate, of a root."""
        return self.positions * self.candidates

    @property
    def kept_share(self) -> float:
        """Positives over pairs."""
        return self.positives / self.pairs if self.pairs else 0.0


def assumed_yield(build: BuildConfig, plan: PlanConfig, largest_chunk: int | None) -> Yield:
    """The yield a plan assumes, within what is possible for the build's roots and chunks."""
    root = build.roots.root_tokens * plan.root_fill
    positions = min(plan.positions_per_root, root / (1 + build.entropy.alpha**2))
    return Yield(
        positions=positions,
        candidates=build.retrieval.top_k,
        positives=min(plan.positives_per_root, positions * build.retrieval.top_k * plan.distinct_share),
        chunk_tokens=min(plan.chunk_tokens, largest_chunk or plan.chunk_tokens),
        root_tokens=root,
        distinct_share=plan.distinct_share,
        placed_share=plan.placed_share,
        source=_ASSUMED,
    )


def measured_yield(manifest: Manifest, assumed: Yield, name: str) -> Yield:
    """The yield of a published round; what its manifest does not say stays as assumed."""
    funnel = manifest.funnel
    roots, positions = funnel.get("roots", 0), funnel.get("positions", 0)
    if not roots or not positions:
        return assumed
    return Yield(
        positions=positions / roots,
        candidates=funnel["verdicts"] / positions,
        positives=funnel["positives"] / roots,
        chunk_tokens=assumed.chunk_tokens,
        root_tokens=assumed.root_tokens,
        distinct_share=assumed.distinct_share,
        placed_share=assumed.placed_share,
        source=f"measured in {name}",
    )


def verified_share(build: BuildConfig, given: Yield) -> float:
    """Share of the passes of a train root that a budget of verification lets be made, the mean of all of them.

    A root of N passes makes ``passes_per_root`` at most; with a quota it makes as many waves as hold that many
    positives when these lie evenly over the passes, so an order that finds them earlier makes fewer. What a floor
    leaves out is not known before a round: with a floor the share is an upper bound. The first shards have no budget
    where an order is learned. A yield that was measured was measured within the budget.
    """
    config, passes = build.verification, given.pairs * given.distinct_share
    if not config.ordered or not given.is_assumed or not passes:
        return 1.0
    made = passes if config.passes_per_root is None else min(passes, config.passes_per_root)
    if config.quota is not None and given.positives:
        made = min(made, config.wave * math.ceil(passes * config.quota / given.positives / config.wave))
    shards = math.ceil(build.roots.roots_per_round / build.roots_per_shard)
    exhaustive = learning_shards(config.learning_share, shards) / shards if config.learns else 0.0
    return exhaustive + (1 - exhaustive) * made / passes


def within_budget(build: BuildConfig, given: Yield) -> Yield:
    """What a train root gives within the budget; its positives are as many as lie in the passes that it makes."""
    share = verified_share(build, given)
    return replace(given, candidates=given.candidates * share, positives=given.positives * share)
