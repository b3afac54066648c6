"""Counts of a column in bins of a fixed width, and gains by distance: one pass each, only the bins are in memory."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.measurements.dependencies import bucket_bounds

ENTROPY_WIDTH = 0.25
"""Nats of a bin; the entropy of a vocabulary of 150,000 tokens is at most 11.9."""
GAIN_WIDTH = 0.05
GAIN_LOW = -1.0
"""Gains below are counted in one bin: entropy that doubled or worse. The largest gain is 1."""
_BUCKETS = 24
"""Doublings of 128 tokens, so distances up to 10^9."""


class Histogram(BaseModel):
    """Counts of bins ``[low + k * width, low + (k + 1) * width)`` from ``first``; those left out are 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: float
    low: float
    counts: dict[int, int] = Field(description="Number of a bin → rows in it.")

    @property
    def total(self) -> int:
        """Rows counted."""
        return sum(self.counts.values())

    def bounds(self, number: int) -> tuple[float, float]:
        """The values ``[from, to)`` of a bin."""
        return self.low + number * self.width, self.low + (number + 1) * self.width


class DistanceBucket(BaseModel):
    """The recorded dependencies of a range of distances."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int = Field(description="Smallest distance, tokens.")
    high: int = Field(description="Distances are below this, tokens.")
    count: int
    gain: float = Field(description="Mean gain in the verdicts.")
    entropy_before: float = Field(description="Mean, nats.")
    entropy_after: float = Field(description="Mean, nats.")


def histogram(
    frame: pl.LazyFrame, column: str, *, width: float, low: float = 0.0, last: int | None = None
) -> Histogram:
    """Counts a column's values; those below ``low`` fall into bin 0, those above into bin ``last`` where given.

    Nulls and NaN are left out. Reads the column in a stream.
    """
    # A boundary such as 0.4 belongs to the bin above it, whatever the last bits of the division are.
    number = ((pl.col(column).cast(pl.Float64) - low) / width + 1e-5).floor().clip(0, last).cast(pl.Int32)
    rows = frame.select(pl.col(column)).filter(pl.col(column).is_not_null() & pl.col(column).is_not_nan())
    counted = rows.select(number.alias("bin")).group_by("bin").len().collect(engine="streaming")
    return Histogram(width=width, low=low, counts={int(k): int(n) for k, n in sorted(counted.iter_rows())})


def entropies(frame: pl.LazyFrame, column: str) -> Histogram:
    """Of a column in nats."""
    return histogram(frame, column, width=ENTROPY_WIDTH)


def gains(frame: pl.LazyFrame, column: str) -> Histogram:
    """Of gains, which are at most 1."""
    return histogram(frame, column, width=GAIN_WIDTH, low=GAIN_LOW, last=round((1 - GAIN_LOW) / GAIN_WIDTH) - 1)


def by_distance(samples: pl.LazyFrame) -> tuple[DistanceBucket, ...]:
    """The dependencies of samples by distance, nearest first: below 128 tokens, then one bucket for every doubling."""
    bounds: Sequence[int] = [bucket_bounds(bucket)[0] for bucket in range(1, _BUCKETS)]
    bucket = pl.sum_horizontal([(pl.col("distance") >= bound).cast(pl.Int32) for bound in bounds])
    values = [pl.col(name).cast(pl.Float64).mean() for name in ("gain", "entropy_before", "entropy_after")]
    found = (
        dependencies(samples)
        .group_by(bucket.alias("bucket"))
        .agg(pl.len().alias("count"), *values)
        .collect(engine="streaming")
        .sort("bucket")
    )
    buckets = []
    for row in found.iter_rows(named=True):
        low, high = bucket_bounds(row.pop("bucket"))
        buckets.append(DistanceBucket(low=low, high=high, **row))
    return tuple(buckets)


def dependencies(samples: pl.LazyFrame) -> pl.LazyFrame:
    """One row per recorded dependency of the samples, with its columns."""
    rows = samples.select("dependencies").filter(pl.col("dependencies").list.len() > 0)
    return rows.explode("dependencies").unnest("dependencies")
