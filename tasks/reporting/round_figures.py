"""The figures of a round behind its report, counted from the version's tables in streams of lazy frames.

Counts of funnel and tokens are the manifest's, whose digest is the version; an audit counts them again. All else is
counted here, each table once or twice, and only sums and bins are in memory, whatever a round has of verdicts.
"""

from __future__ import annotations

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from storage.manifests import Manifest
from tasks.audit.subject import Subject
from tasks.provenance.lineage import Ancestor, lineage
from tasks.provenance.lookup import readable
from tasks.reporting.histograms import DistanceBucket, Histogram, by_distance, entropies, gains

LEFT_OUT_SHOWN = 12
"""Reasons of a kind that a page lists; a recipe has fewer."""


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Judged(_Figures):
    """Sums over the verdicts. Means are over the kept ones, null when there is none; entropies and nll in nats.

    Kept pairs whose token is given no probability, with the passage or without it, are left out of the means of nll.
    """

    verdicts: int
    kept: int
    gain: float | None
    entropy_before: float | None
    entropy_after: float | None
    nll_before: float | None
    nll_after: float | None
    literal: int = Field(description="Kept pairs in whose chunk the bigram before and at the position stands.")
    less_right: int = Field(description="Kept pairs after which the token that stands there is less likely.")
    impossible: int = Field(description="Kept pairs that are left out of the means of nll: it is infinite.")
    placebos: int = Field(description="Pairs judged with a random chunk of the same length as well.")
    placebos_kept: int = Field(description="Of these, random chunks whose gain is over epsilon.")


class Refused(_Figures):
    """Rows of a table that were refused, for one reason."""

    table: str
    kind: str = Field(description="What was refused, for tables of several kinds.")
    reason: str
    rows: int
    tokens: int | None = Field(description="Tokens left out, where the table says so.")


class RoundFigures(_Figures):
    """What a round's page is made of, beside its examples and what was measured after it."""

    version: str
    manifest: Manifest
    scored: int = Field(description="Tokens of roots that entered the thresholds.")
    judged: Judged | None = Field(description="Null for a recipe that verifies nothing.")
    position_entropy: Histogram
    root_entropy: Histogram = Field(description="Means of the roots.")
    threshold: Histogram
    gain: Histogram = Field(description="Of every verified pair.")
    placebo_gain: Histogram
    kept_gain: Histogram
    distances: tuple[DistanceBucket, ...]
    refused: tuple[Refused, ...]
    policies: tuple[Ancestor, ...] = Field(description="Who screened, then parent by parent to the base model.")

    @property
    def epsilon(self) -> float | None:
        """The gain that a pair must pass."""
        return setting(self.manifest, "verification", "epsilon")

    @property
    def alpha(self) -> float | None:
        """Deviations above a root's mean at which its threshold lies."""
        return setting(self.manifest, "entropy", "alpha")


def round_figures(subject: Subject) -> RoundFigures:
    """Counts everything; raises ``IntegrityError`` when a table can't be read."""
    with readable(subject):
        positions, screened, verdicts = (subject.table(name) for name in ("positions", "screened", "verdicts"))
        return RoundFigures(
            version=subject.version,
            manifest=subject.manifest,
            scored=int(screened.select(pl.col("scored").cast(pl.Int64).sum()).collect(engine="streaming").item() or 0),
            judged=_judged(verdicts, subject) if subject.has("verdicts") else None,
            position_entropy=entropies(positions, "entropy"),
            root_entropy=entropies(screened, "mean"),
            threshold=entropies(screened, "threshold"),
            gain=gains(verdicts, "gain"),
            placebo_gain=gains(verdicts, "placebo_gain"),
            kept_gain=gains(verdicts.filter(pl.col("kept")), "gain"),
            distances=by_distance(subject.table("samples")),
            refused=tuple(_refused(subject)),
            policies=lineage(subject.home, subject.manifest),
        )


def setting(manifest: Manifest, section: str, key: str) -> float | None:
    """A number of a round's configuration, or None when it has none of this name."""
    config = manifest.config.get("build", manifest.config)
    found = config.get(section, {}).get(key)
    return float(found) if isinstance(found, int | float) else None


def _judged(verdicts: pl.LazyFrame, subject: Subject) -> Judged:
    epsilon = subject.setting("verification", "epsilon")
    placebo, value = pl.col("placebo_gain"), pl.Float64
    possible = pl.all_horizontal(pl.col(name).is_finite() for name in _LIKELIHOODS)
    sums = verdicts.group_by("kept", "literal").agg(
        pl.len().alias("rows"),
        *(pl.col(name).cast(value).sum() for name in _MEANS),
        *(pl.col(name).filter(possible).cast(value).sum() for name in _LIKELIHOODS),
        (~possible).sum().alias("impossible"),
        (pl.col("nll_after") > pl.col("nll_before")).sum().alias("less_right"),
        placebo.is_not_null().sum().alias("placebos"),
        (placebo > (1.0 if epsilon is None else float(epsilon))).sum().alias("placebos_kept"),
    )
    groups = sums.collect(engine="streaming")
    kept = groups.filter(pl.col("kept"))
    count = int(kept["rows"].sum())
    impossible = int(kept["impossible"].sum())
    means = {name: float(kept[name].sum()) / count if count else None for name in _MEANS}
    rest = count - impossible
    means |= {name: float(kept[name].sum()) / rest if rest else None for name in _LIKELIHOODS}
    return Judged(
        verdicts=int(groups["rows"].sum()),
        kept=count,
        literal=int(kept.filter(pl.col("literal"))["rows"].sum()),
        less_right=int(kept["less_right"].sum()),
        impossible=impossible,
        placebos=int(groups["placebos"].sum()),
        placebos_kept=int(groups["placebos_kept"].sum()),
        **means,
    )


_MEANS = ("gain", "entropy_before", "entropy_after")
_LIKELIHOODS = ("nll_before", "nll_after")


def _refused(subject: Subject) -> list[Refused]:
    """Every reason for which candidates, negatives and contexts were left out, most frequent first."""
    rows = pl.len().alias("rows")
    queries = {
        "candidates": subject.table("candidates")
        .filter(pl.col("excluded").is_not_null())
        .group_by(pl.lit("candidate").alias("kind"), pl.col("excluded").alias("reason"))
        .agg(rows, pl.lit(None, pl.Int64).alias("tokens")),
        "negatives": subject.table("negatives")
        .filter(~pl.col("kept"))
        .group_by(pl.lit("negative").alias("kind"), pl.col("reason").fill_null("no reason recorded"))
        .agg(rows, pl.lit(None, pl.Int64).alias("tokens")),
        "unplaced": subject.table("unplaced")
        .group_by("kind", "reason")
        .agg(rows, pl.col("tokens").cast(pl.Int64).sum()),
    }
    if subject.has("passes"):
        left = subject.table("passes").filter(~pl.col("verified"))
        tokens = pl.col("tokens").cast(pl.Int64).sum()
        queries["passes"] = left.group_by(pl.lit("pass").alias("kind"), "reason").agg(rows, tokens)
    found: list[Refused] = []
    for table, query in queries.items():
        counted = query.collect(engine="streaming").sort(["rows", "kind", "reason"], descending=[True, False, False])
        found += [Refused(table=table, **row) for row in counted.head(LEFT_OUT_SHOWN).iter_rows(named=True)]
    return found
