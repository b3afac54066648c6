"""Figures of a round, from its tables alone: gains, copying, placebo, thresholds."""

from __future__ import annotations

import polars as pl

NEAR = 1e-4
"""A gain this close to epsilon may fall on the other side on other hardware; such pairs are counted."""


def verdict_figures(verdicts: pl.DataFrame, epsilon: float) -> dict[str, float]:
    """Rates and means of a round's verdicts; what can't be computed (no kept pair, no placebo) is left out.

    A token that the policy can't produce (its logit is masked) has an infinite negative log-likelihood. The entropies
    beside it are numbers as ever, so its pair counts everywhere but in the mean of the likelihoods; there it would be
    all there is to see. ``nll_infinite`` counts such kept pairs, where there are any.
    """
    kept = verdicts.filter(pl.col("kept"))
    change = kept["nll_after"] - kept["nll_before"]
    infinite = int((~change.is_finite()).sum())
    placebo = verdicts.filter(pl.col("placebo_gain").is_not_null())
    literal = verdicts.filter(pl.col("literal"))
    other = verdicts.filter(~pl.col("literal"))
    values = {
        "mean_gain": kept["gain"].mean(),
        "mean_entropy_before": kept["entropy_before"].mean(),
        "mean_entropy_after": kept["entropy_after"].mean(),
        "mean_nll_change": change.filter(change.is_finite()).mean(),
        "nll_infinite": float(infinite) if infinite else None,
        "kept_rate": verdicts["kept"].mean(),
        "kept_rate_literal": literal["kept"].mean(),
        "kept_rate_other": other["kept"].mean(),
        "kept_literal_share": kept["literal"].mean(),
        "placebo_kept_rate": (placebo["placebo_gain"] > epsilon).mean(),
        "near_epsilon": float(((verdicts["gain"] - epsilon).abs() < NEAR).sum()),
    }
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def budget_figures(verdicts: pl.DataFrame, passes: pl.DataFrame) -> dict[str, float]:
    """What a budget left out, and what it does to what is found: the same figures on roots that had a budget and on
    those verified exhaustively (the first shards, the probe set); a cheaper set may be a different one.

    ``expected_kept`` are the kept pairs that the ordering's model expected of the passes that were made,
    ``budgeted_kept`` those that there were.
    """
    left = passes.filter(~pl.col("verified"))
    figures: dict[str, object] = {
        "passes_left_out": float(len(left)),
        "passes_left_out_share": len(left) / len(passes) if len(passes) else None,
    }
    figures |= {
        f"passes_left_out_{reason}": float(count) for reason, count in left["reason"].value_counts().iter_rows()
    }
    budgeted = passes.select("root").unique()
    for name, part in (
        ("budgeted", verdicts.join(budgeted, on="root", how="semi")),
        ("exhaustive", verdicts.join(budgeted, on="root", how="anti")),
    ):
        kept = part.filter(pl.col("kept"))
        made = part.select("root", "chunk").n_unique()
        figures |= {
            f"{name}_positives_per_pass": kept.select("root", "chunk").n_unique() / made if made else None,
            f"{name}_kept_literal_share": kept["literal"].mean(),
            f"{name}_mean_gain": kept["gain"].mean(),
        }
    expected = passes.filter("verified")["expected"].drop_nulls()
    if len(expected):
        kept_pairs = verdicts.join(budgeted, on="root", how="semi")["kept"].sum()
        figures |= {"expected_kept": float(expected.sum()), "budgeted_kept": float(kept_pairs)}
    return {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}


def screened_figures(screened: pl.DataFrame) -> dict[str, float]:
    """Mean entropy and threshold over the roots, nats."""
    if not len(screened):
        return {}
    weights = screened["scored"]
    total = int(weights.sum())
    means = {"mean_threshold": float((screened["threshold"] * weights).sum()) / total} if total else {}
    return means | ({"mean_entropy": float((screened["mean"] * weights).sum()) / total} if total else {})
