"""Does the data change with the model? Two screenings of the same probe roots, compared (docs/method.md 6, ours).

    compare_probe(before, after).figures()

The probe set is screened in every round and never trained on, so what differs between two rounds is the policy alone.
How much has to differ for nothing to have happened is what the nulls say (``tasks.measurements.probe_screening``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from storage.errors import InputError
from storage.home import Home
from storage.schemas import POSITIONS, ROOTS, SCREENED, VERDICTS
from tasks.measurements.measurement import MeasuredVersion


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """The probe roots' rows of the tables of the same names, as one policy screened them."""

    screened: pl.DataFrame
    positions: pl.DataFrame
    verdicts: pl.DataFrame


class Drift(BaseModel):
    """How a quantity changed where both screenings have it; null where there is nothing to compute it from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(description="Values compared.")
    mean: float | None = Field(description="Mean of after - before, nats.")
    mean_absolute: float | None = Field(description="Mean of |after - before|, nats.")
    pearson: float | None = Field(description="Correlation; null for fewer than three values or a constant.")
    spearman: float | None = Field(description="Correlation of ranks, ties at their average.")


class ProbeComparison(BaseModel):
    """What two screenings of the probe set share. Overlaps are Jaccard's: shared / all; null when both are empty."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    roots: int = Field(description="Probe roots that both screened.")
    positions_before: int
    positions_after: int
    positions_shared: int
    overlap_positions: float | None = Field(description="Of the selected positions (root, t).")
    positives_before: int = Field(description="Kept pairs of position and chunk.")
    positives_after: int
    positives_shared: int
    overlap_positives: float | None = Field(description="Of the kept (root, t, chunk).")
    overlap_positives_at_shared_positions: float | None = Field(
        description="The same at positions that both selected: what changed in retrieval and verdicts alone."
    )
    entropy: Drift = Field(description="Entropy of the tokens that both selected; high ones, so not of all tokens.")
    mean_entropy: Drift = Field(description="Mean entropy of a root, over all its scored tokens.")
    threshold: Drift = Field(description="Threshold of a root.")

    def figures(self, prefix: str = "probe") -> dict[str, float]:
        """The figures for a report, each named ``<prefix>_…``; those without a value are left out."""
        values = {
            "overlap_positions": self.overlap_positions,
            "overlap_positives": self.overlap_positives,
            "overlap_positives_at_shared_positions": self.overlap_positives_at_shared_positions,
            "entropy_drift": self.entropy.mean,
            "entropy_drift_absolute": self.entropy.mean_absolute,
            "entropy_correlation": self.entropy.pearson,
            "entropy_rank_correlation": self.entropy.spearman,
            "mean_entropy_drift": self.mean_entropy.mean,
            "threshold_drift": self.threshold.mean,
            "threshold_drift_absolute": self.threshold.mean_absolute,
            "threshold_correlation": self.threshold.pearson,
        }
        return {f"{prefix}_{name}": value for name, value in values.items() if value is not None}


def overlap(now: pl.DataFrame, before: pl.DataFrame, columns: list[str]) -> float | None:
    """Jaccard overlap of two tables' rows on ``columns``; None when both are empty."""
    first, second = now.select(columns).unique(), before.select(columns).unique()
    shared = len(first.join(second, on=columns, how="inner"))
    union = len(first) + len(second) - shared
    return shared / union if union else None


def drift(before: NDArray[Any], after: NDArray[Any]) -> Drift:
    """The change from ``before`` to ``after``, value by value (float64 [n])."""
    change = after - before
    return Drift(
        count=len(change),
        mean=float(change.mean()) if len(change) else None,
        mean_absolute=float(np.abs(change).mean()) if len(change) else None,
        pearson=_correlation(before, after),
        spearman=_correlation(_ranks(before), _ranks(after)),
    )


def _ranks(values: NDArray[Any]) -> NDArray[Any]:
    return pl.Series(values).rank("average").to_numpy().astype(np.float64)


def _correlation(first: NDArray[Any], second: NDArray[Any]) -> float | None:
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    a, b = first - first.mean(), second - second.mean()
    return float(np.clip((a @ b) / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def compare_probe(before: ProbeSet, after: ProbeSet) -> ProbeComparison:
    """Overlap and drift from one screening of the probe set to another; roots are compared where both have them."""
    spot, pair = ["root", "t"], ["root", "t", "chunk"]
    kept_before, kept_after = before.verdicts.filter(pl.col("kept")), after.verdicts.filter(pl.col("kept"))
    both = before.positions.select(spot).join(after.positions.select(spot), on=spot)
    there = [kept.join(both, on=spot, how="semi") for kept in (kept_before, kept_after)]
    return ProbeComparison(
        roots=len(before.screened.join(after.screened, on="root", how="semi")),
        positions_before=len(before.positions),
        positions_after=len(after.positions),
        positions_shared=len(both),
        overlap_positions=overlap(after.positions, before.positions, spot),
        positives_before=len(kept_before),
        positives_after=len(kept_after),
        positives_shared=len(kept_before.join(kept_after, on=pair, how="semi")),
        overlap_positives=overlap(kept_after, kept_before, pair),
        overlap_positives_at_shared_positions=overlap(there[1], there[0], pair),
        entropy=_drift_of("entropy", before.positions, after.positions, spot),
        mean_entropy=_drift_of("mean", before.screened, after.screened, ["root"]),
        threshold=_drift_of("threshold", before.screened, after.screened, ["root"]),
    )


def _drift_of(column: str, before: pl.DataFrame, after: pl.DataFrame, on: list[str]) -> Drift:
    joined = before.select(*on, column).join(after.select(*on, pl.col(column).alias("after")), on=on)
    values = [joined[name].cast(pl.Float64).to_numpy() for name in (column, "after")]
    return drift(values[0], values[1])


def probe_of_version(home: Home, version: str) -> tuple[tuple[str, ...], ProbeSet]:
    """(root ids, probe set) of a published version; raises ``InputError`` when it has none."""
    measured = MeasuredVersion.open(home, version)
    roots = measured.frame(ROOTS, ["role", "root_id"]).with_row_index("root")
    probe = roots.filter(pl.col("role") == "probe").select(pl.col("root").cast(pl.Int32), "root_id")
    if not len(probe):
        raise InputError(
            f"dataset version {measured.version[:12]} (recipe {measured.manifest.recipe}) has no probe set.",
            hint="Set build.roots.probe_roots, with a recipe that screens.",
        )
    tables = {
        schema.name: measured.frame(schema, [column.name for column in schema.columns]).join(
            probe.select("root"), on="root", how="semi"
        )
        for schema in (SCREENED, POSITIONS, VERDICTS)
    }
    return tuple(probe["root_id"].to_list()), ProbeSet(**tables)


def compare_versions(home: Home, before: str, after: str) -> ProbeComparison:
    """Overlap and drift of two published versions' probe sets.

    Raises ``InputError`` when one has none, or their roots are not the same.
    """
    (roots_before, first), (roots_after, second) = (probe_of_version(home, version) for version in (before, after))
    if roots_before != roots_after:
        raise InputError(
            f"dataset versions {before[:12]} and {after[:12]} have different probe roots, so they do not compare.",
            hint="Compare rounds of one campaign, or of campaigns with the same corpus, tokenizer and build.roots.",
        )
    return compare_probe(first, second)
