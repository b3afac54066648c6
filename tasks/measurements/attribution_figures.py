"""The result of an attribution: means and their error over dependencies that were chosen bucket by bucket.

A dependency of a bucket with N in the version and n measured weighs N / n, so a mean is that of the version and not of
the choice. [ours, docs/method.md 6]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from tasks.measurements.dependencies import Chosen, bucket_bounds, bucket_of


@dataclass(frozen=True, slots=True)
class Measured:
    """A dependency and its attributable gain (a share of the recorded entropy)."""

    dependency: Chosen
    gain: float


class Part(BaseModel):
    """Some of the dependencies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(description="Dependencies measured.")
    mean: float | None = Field(description="Mean attributable gain; null when none was measured.")
    recorded: float | None = Field(description="Mean gain of the same dependencies in their verdicts.")


class DistanceBucket(Part):
    """The dependencies of a range of distances."""

    low: int = Field(description="Smallest distance, tokens.")
    high: int = Field(description="Distances are below this, tokens.")
    dependencies: int = Field(description="Dependencies of the version in this range.")


class AttributableGain(Part):
    """The result for one version under one policy. Gains are shares of the recorded entropy without context."""

    policy: str
    version: str
    standard_error: float | None = Field(
        description="Of the mean, from the pooled variance within the buckets, the dependencies taken as independent;"
        " null when no bucket has two."
    )
    survived: float | None = Field(description="Share whose attributable gain is over the version's epsilon.")
    dependencies: int = Field(description="Dependencies of the version.")
    buckets: tuple[DistanceBucket, ...] = Field(description="By distance, nearest first.")
    beyond_native: Part = Field(
        description="Positions whose prediction needs more tokens before it than the policy's native context."
    )
    distance_beyond_native: Part = Field(description="Dependencies whose distance alone is over the native context.")
    native_context: int = Field(description="Context the policy's configuration declares, tokens.")
    sample_tokens: int = Field(description="Tokens of the longest sample that was read.")
    tokens_read: int = Field(description="Tokens of forward pass.")
    note: str = Field("", description="What a reader has to know: nothing to measure, stretched positions.")

    def figures(self) -> dict[str, float]:
        """The figures for a report or a tracked run; those without a value are left out."""
        values = {
            "attributable_gain": self.mean,
            "attributable_gain_standard_error": self.standard_error,
            "attributable_gain_recorded": self.recorded,
            "attributable_gain_survived": self.survived,
            "attributable_gain_beyond_native": self.beyond_native.mean,
            "attributable_gain_count": float(self.count),
            "attributable_gain_tokens_read": float(self.tokens_read),
        }
        values |= {f"attributable_gain_from_{bucket.low}": bucket.mean for bucket in self.buckets}
        return {name: value for name, value in values.items() if value is not None}


def summary(
    measured: Sequence[Measured],
    counts: Mapping[int, int],
    *,
    policy: str,
    version: str,
    epsilon: float,
    native_context: int,
    sample_tokens: int,
    tokens_read: int,
    left_out: int = 0,
) -> AttributableGain:
    """The result of measured dependencies; ``counts`` says how many the version has in each bucket of distance."""
    by_bucket: dict[int, list[Measured]] = {bucket: [] for bucket in sorted(counts)}
    for one in measured:
        by_bucket[bucket_of(one.dependency.distance)].append(one)
    weights = {bucket: counts[bucket] / len(found) for bucket, found in by_bucket.items() if found}

    def weighted(ones: Sequence[Measured], value: Callable[[Measured], float]) -> float | None:
        total = math.fsum(weights[bucket_of(one.dependency.distance)] for one in ones)
        values = (weights[bucket_of(one.dependency.distance)] * value(one) for one in ones)
        return math.fsum(values) / total if ones else None

    def part(ones: Sequence[Measured]) -> dict[str, float | int | None]:
        return {
            "count": len(ones),
            "mean": weighted(ones, lambda one: one.gain),
            "recorded": weighted(ones, lambda one: one.dependency.gain),
        }

    buckets = []
    for bucket, found in by_bucket.items():
        low, high = bucket_bounds(bucket)
        buckets.append(
            DistanceBucket.model_validate({"low": low, "high": high, "dependencies": counts[bucket], **part(found)})
        )
    return AttributableGain.model_validate(
        {
            **part(measured),
            "policy": policy,
            "version": version,
            "standard_error": _standard_error(by_bucket, counts),
            "survived": weighted(measured, lambda one: float(one.gain > epsilon)),
            "dependencies": sum(counts.values()),
            "buckets": tuple(buckets),
            "beyond_native": part([one for one in measured if one.dependency.position > native_context]),
            "distance_beyond_native": part([one for one in measured if one.dependency.distance > native_context]),
            "native_context": native_context,
            "sample_tokens": sample_tokens,
            "tokens_read": tokens_read,
            "note": _note(sum(counts.values()), left_out, sample_tokens, native_context),
        }
    )


def _standard_error(by_bucket: Mapping[int, Sequence[Measured]], counts: Mapping[int, int]) -> float | None:
    """sqrt(s^2 * sum of W^2 / n) over the buckets: W a bucket's share of the version, s^2 the variance within them."""
    filled = {bucket: [one.gain for one in found] for bucket, found in by_bucket.items() if found}
    freedom = sum(len(gains) - 1 for gains in filled.values())
    if not freedom:
        return None
    squares = 0.0
    for gains in filled.values():
        mean = math.fsum(gains) / len(gains)
        squares += math.fsum((gain - mean) ** 2 for gain in gains)
    total = sum(counts[bucket] for bucket in filled)
    spread = math.fsum((counts[bucket] / total) ** 2 / len(gains) for bucket, gains in filled.items())
    return math.sqrt(squares / freedom * spread)


def _note(dependencies: int, left_out: int, sample_tokens: int, native: int) -> str:
    notes = []
    if not dependencies:
        notes.append("the version has no dependencies")
    if left_out:
        notes.append(f"{left_out} dependencies were left out: no chunk of the corpus may stand in for theirs")
    if native < sample_tokens:
        notes.append(f"measured with its positions stretched from {native} to {sample_tokens} tokens, untrained")
    return "; ".join(notes)
