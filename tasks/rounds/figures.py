"""Figures of a round, from its tables alone: gains, copying, placebo, thresholds."""

from __future__ import annotations

import polars as pl

NEAR = 1e-4
"""A gain this close to epsilon may fall on the other side on other hardware; such pairs are counted."""


def verdict_figures(verdicts: pl.DataFrame, epsilon: float) -> dict[str, float]:
    """Rates and means of a round's verdicts; what can't be computed (no kept pair, no placebo) is left out."""
    kept = verdicts.filter(pl.col("kept"))
    placebo = verdicts.filter(pl.col("placebo_gain").is_not_null())
    literal = verdicts.filter(pl.col("literal"))
    other = verdicts.filter(~pl.col("literal"))
    values = {
        "mean_gain": kept["gain"].mean(),
        "mean_entropy_before": kept["entropy_before"].mean(),
        "mean_entropy_after": kept["entropy_after"].mean(),
        "mean_nll_change": (kept["nll_after"] - kept["nll_before"]).mean(),
        "kept_rate": verdicts["kept"].mean(),
        "kept_rate_literal": literal["kept"].mean(),
        "kept_rate_other": other["kept"].mean(),
        "kept_literal_share": kept["literal"].mean(),
        "placebo_kept_rate": (placebo["placebo_gain"] > epsilon).mean(),
        "near_epsilon": float(((verdicts["gain"] - epsilon).abs() < NEAR).sum()),
    }
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def screened_figures(screened: pl.DataFrame) -> dict[str, float]:
    """Mean entropy and threshold over the roots, nats."""
    if not len(screened):
        return {}
    weights = screened["scored"]
    total = int(weights.sum())
    means = {"mean_threshold": float((screened["threshold"] * weights).sum()) / total} if total else {}
    return means | ({"mean_entropy": float((screened["mean"] * weights).sum()) / total} if total else {})
