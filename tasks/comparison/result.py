"""What a comparison found: figures of every arm out of its manifests and records, and their spread over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from storage.campaigns import Campaign
from storage.home import Home
from storage.manifests import Manifest
from storage.versions import load_manifest, table_refs
from tasks.comparison.arms import Arm, Filled
from tasks.measurements.context_gain import ContextGain

KINDS = ("root", "positive", "negative", "filler", "document")
"""Kinds of token whose shares are shown; the rest (separators, tags, a BOS) is ``other``."""


class ArmResult(BaseModel):
    """One recipe with one seed. Gains and losses in nats a token, one per round, after its training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    seed: int
    campaign: str
    versions: tuple[str, ...] = Field(description="Dataset version of each round.")
    policies: tuple[str, ...] = Field(description="Policy after each round.")
    context_gains: tuple[float | None, ...]
    standard_errors: tuple[float | None, ...] = Field(description="Of each gain, over the held-out windows.")
    heldout_losses: tuple[float | None, ...] = Field(description="With the long context.")
    data_tokens: int = Field(description="Tokens of the samples of all rounds.")
    training_tokens: int = Field(description="Tokens trained on, repeats counted.")
    shares: dict[str, float] = Field(description="Share of each kind in the samples' tokens; they add up to 1.")
    unique_share: float | None = Field(description="See ``unique_share``.")
    positives: int = Field(description="Verified positives of all rounds: different pairs of root and chunk.")
    screening_seconds: float = Field(description="Of every step the arm needed, also of those that arms share.")
    training_seconds: float

    def figures(self) -> dict[str, float | None]:
        """Every number by name; the gain and the loss are those after the last round."""
        rounds = {f"context_gain_round_{n}": gain for n, gain in enumerate(self.context_gains, 1)}
        return {
            "context_gain": self.context_gains[-1],
            "standard_error": self.standard_errors[-1],
            "heldout_loss": self.heldout_losses[-1],
            **rounds,
            "data_tokens": self.data_tokens,
            "training_tokens": self.training_tokens,
            **{f"share_{kind}": share for kind, share in self.shares.items()},
            "share_unique": self.unique_share,
            "positives": self.positives,
            "screening_seconds": self.screening_seconds,
            "training_seconds": self.training_seconds,
        }


class Spread(BaseModel):
    """A figure over seeds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    low: float
    high: float
    deviation: float | None = Field(description="Standard deviation (n - 1); null for fewer than three seeds.")


class Comparison(BaseModel):
    """The whole result, as ``--json`` prints it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    seeds: int
    rounds: int
    tokens: int = Field(description="Budget of every round.")
    recipes: tuple[str, ...] = Field(description="In the order they are shown; those that were added last.")
    added: tuple[str, ...] = Field(description="Recipes that were not asked for and screen for one that was.")
    base: ContextGain = Field(description="The base model, measured once.")
    arms: tuple[ArmResult, ...]
    summary: dict[str, dict[str, Spread | None]] = Field(
        description="Recipe → figure → spread over seeds; null where a figure can't be had."
    )


def filled_rounds(home: Home, campaign: Campaign) -> list[Filled]:
    """What every round of a campaign made, out of the manifests."""
    return [
        Filled(campaign.name, record.round, load_manifest(home, record.version).tokens["total"])
        for record in campaign.rounds
    ]


def arm_result(home: Home, arm: Arm, campaign: Campaign) -> ArmResult:
    """The figures of a finished arm."""
    records = campaign.rounds
    manifests = [load_manifest(home, record.version) for record in records]
    files = [
        home / ref.uri
        for record, manifest in zip(records, manifests, strict=True)
        for ref in table_refs(record.version, manifest, "samples")
    ]

    def numbers(name: str) -> tuple[float | None, ...]:
        return tuple(float(v) if isinstance(v := r.figures.get(name), int | float) else None for r in records)

    def total(name: str) -> float:
        return math.fsum(value or 0.0 for value in numbers(name))

    return ArmResult(
        recipe=arm.recipe,
        seed=arm.seed,
        campaign=campaign.name,
        versions=tuple(record.version for record in records),
        policies=tuple(record.next_policy or "" for record in records),
        context_gains=numbers("context_gain_after"),
        standard_errors=numbers("context_gain_error"),
        heldout_losses=numbers("heldout_loss_after"),
        data_tokens=sum(manifest.tokens["total"] for manifest in manifests),
        training_tokens=int(total("training_tokens")),
        shares=token_shares([manifest.tokens for manifest in manifests]),
        unique_share=unique_share(pl.scan_parquet(files)),
        positives=sum(_positives(manifest) for manifest in manifests),
        screening_seconds=total("screening_seconds"),
        training_seconds=total("training_seconds"),
    )


def _positives(manifest: Manifest) -> int:
    return manifest.funnel.get("positives", 0)


def token_shares(rounds: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """Share of each of ``KINDS``, and of the ``other`` tokens, in all tokens of several rounds' manifests."""
    total = sum(tokens["total"] for tokens in rounds)
    if not total:
        return dict.fromkeys((*KINDS, "other"), 0.0)
    counts = {kind: sum(tokens.get(kind, 0) for tokens in rounds) for kind in KINDS}
    counts["other"] = total - sum(counts.values())
    return {kind: count / total for kind, count in counts.items()}


def unique_share(samples: pl.LazyFrame) -> float | None:
    """Share of the samples' tokens that are not there for a second time; None without a segment.

    A token is known by its origin (root, chunk or document) and its place in it: the share is the number of different
    pairs over all samples, divided by the tokens of all segments. Separators and tags have no origin and count neither
    above nor below. Text that two origins have in common, such as a root and a chunk of one document, counts once for
    each.
    """
    spans = (
        samples.select(pl.col("segments").explode().struct.unnest())
        .drop_nulls("kind")
        .filter(pl.col("kind") != "tag")
        .select(
            pl.coalesce("root_id", "chunk_id", "doc_id").alias("origin"),
            pl.col("source_start").cast(pl.Int64).alias("first"),
            (pl.col("source_start") + pl.col("end") - pl.col("start")).cast(pl.Int64).alias("stop"),
        )
        .collect(engine="streaming")
    )
    total = int((spans["stop"] - spans["first"]).sum())
    if not total:
        return None
    reached = pl.col("stop").cum_max().shift(1, fill_value=0).over("origin")
    new = (
        spans.unique()
        .sort("origin", "first", "stop")
        .with_columns(pl.max_horizontal("first", reached).alias("from"))
        .select((pl.col("stop") - pl.col("from")).clip(lower_bound=0).sum())
    )
    return int(new.item()) / total


def spread_of(values: Sequence[float | None]) -> Spread | None:
    """Mean, smallest and largest value, and from three on the standard deviation; None when a value is missing."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return Spread(
        mean=statistics.fmean(known),
        low=min(known),
        high=max(known),
        deviation=statistics.stdev(known) if len(known) > 2 else None,
    )


def summarised(arms: Sequence[ArmResult]) -> dict[str, dict[str, Spread | None]]:
    """Recipe → figure → spread over its arms."""
    found: dict[str, dict[str, Spread | None]] = {}
    for recipe in dict.fromkeys(arm.recipe for arm in arms):
        figures = [arm.figures() for arm in arms if arm.recipe == recipe]
        found[recipe] = {name: spread_of([values[name] for values in figures]) for name in figures[0]}
    return found
