"""Audit of a round whose verification had a budget: what was left out was allowed to be left out.

A root's passes are listed in the order of the configuration; the first of them were made, no more and no fewer than
quota, budget and floor say. The first shards, where the order was learned, and the probe set have no budget.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from storage.findings import Finding, not_checkable
from tasks.audit.subject import FILE, Subject, duplicates, judge, missing
from tasks.screening.ordering import PER_TOKENS, learning_shards

PASS = ("root", "chunk")
_PLACED = (*PASS, "place")


def left_in(eligible: pl.LazyFrame, subject: Subject) -> pl.LazyFrame:
    """Of candidates that were not excluded, those whose pass was not left out by a budget."""
    if not subject.has("passes"):
        return eligible
    left_out = subject.table("passes").filter(~pl.col("verified")).select(PASS)
    return eligible.join(left_out, on=list(PASS), how="anti")


def audit_passes(subject: Subject) -> Iterator[Finding]:
    """Table ``passes`` against candidates, verdicts and the budget of the configuration."""
    passes = subject.table("passes")
    if subject.setting("verification", "ordering") in (None, "exhaustive"):
        hidden = passes.filter(~pl.col("verified"))
        yield judge("a round without a budget leaves nothing out", hidden, _PLACED)
        return
    eligible = subject.table("candidates").filter(pl.col("excluded").is_null())
    budgeted = eligible.join(passes.select("root").unique(), on="root", how="semi")
    yield judge("no pass occurs twice", duplicates(passes, PASS), (*PASS, "times"))
    yield judge("every pass is of a candidate that was not excluded", missing(passes, eligible, PASS), PASS)
    yield judge("every candidate of a root with a budget has its pass", missing(budgeted, passes, PASS), PASS)
    verdicts = subject.table("verdicts")
    left_out = passes.filter(~pl.col("verified"))
    judged = verdicts.join(left_out.select(PASS), on=list(PASS), how="semi")
    yield judge("no pass that was left out has a verdict", judged, PASS)
    unmade = missing(passes.filter("verified"), verdicts, PASS)
    yield judge("every pass that was made has its verdicts", unmade, PASS)
    yield from _order(subject, passes, eligible)
    yield from _limits(subject, passes, verdicts)
    yield from _without_budget(subject, passes)


def _order(subject: Subject, passes: pl.LazyFrame, eligible: pl.LazyFrame) -> Iterator[Finding]:
    best = eligible.group_by(PASS).agg(pl.col("rank").min().alias("best"))
    ranks = passes.join(best, on=list(PASS)).filter(pl.col("rank") != pl.col("best"))
    yield judge("every pass has the best rank of its candidates", ranks, (*PASS, "rank"))
    learned = subject.setting("verification", "ordering") == "expected-yield"
    wrong = passes.filter(pl.col("expected").is_null() == learned)
    yield judge("every pass has an expectation where the order needs one", wrong, _PLACED)
    gain = (pl.col("expected") / pl.col("tokens")).fill_null(0.0)
    placed = (
        passes.with_columns(density=-gain)
        .sort("root", "density", "rank", "chunk")
        .with_columns(due=pl.int_range(pl.len()).over("root"))
    )
    yield judge("every pass stands where the order puts it", placed.filter(pl.col("due") != pl.col("place")), _PLACED)
    first = passes.sort("root", "place").with_columns(
        before=pl.col("verified").shift(1, fill_value=True).over("root", order_by="place")
    )
    skipped = first.filter(pl.col("verified") & ~pl.col("before"))
    yield judge("no pass was made behind one that was left out", skipped, _PLACED)


def _limits(subject: Subject, passes: pl.LazyFrame, verdicts: pl.LazyFrame) -> Iterator[Finding]:
    """Made passes of a root: as many as it could afford, and up to the wave that brought its quota."""
    quota, most, floor, wave = (
        subject.setting("verification", name) for name in ("quota", "passes_per_root", "floor", "wave")
    )
    check = "every root stopped where its budget says"
    if wave is None:
        yield not_checkable(check, "the manifest's config names no verification.wave")
        return
    below = pl.lit(False)
    if floor is not None:
        below = pl.col("expected") * PER_TOKENS < floor * pl.col("tokens")
    found = verdicts.filter("kept").select(PASS).unique().with_columns(positive=pl.lit(True))
    roots = (
        passes.join(found, on=list(PASS), how="left")
        .group_by("root")
        .agg(
            passes=pl.len(),
            made=pl.col("verified").sum(),
            above=pl.col("place").filter(below).min(),
            places=pl.col("place").filter(pl.col("positive").fill_null(False)).sort(),
            reasons=pl.col("reason").drop_nulls().unique().sort(),
            file=pl.col(FILE).last(),
        )
        .with_columns(pl.col("above").fill_null(pl.col("passes")).cast(pl.Int64))
    )
    limit = pl.min_horizontal("above", pl.lit(most, pl.Int64))
    # The place of the positive that fills the quota; its whole wave is made.
    last = pl.col("places").list.get(quota - 1, null_on_oob=True) if quota is not None else pl.lit(None, pl.Int32)
    filled = (last.cast(pl.Int64) // wave + 1) * wave
    due = pl.min_horizontal(limit, filled)
    reason = (
        pl.when(due == pl.col("passes"))
        .then(None)
        .when(filled.is_not_null())
        .then(pl.lit("quota"))
        .when(limit < pl.col("above"))
        .then(pl.lit("budget"))
        .otherwise(pl.lit("floor"))
    )
    expected = pl.when(reason.is_null()).then(pl.lit([], pl.List(pl.String))).otherwise(pl.concat_list(reason))
    wrong = roots.filter((pl.col("made") != due) | (pl.col("reasons") != expected))
    yield judge(check, wrong, ("root", "made", "passes"), f"quota {quota}, passes {most}, floor {floor}, wave {wave}")
    silent = passes.filter(pl.col("verified") != pl.col("reason").is_null())
    yield judge("every pass that was left out has a reason", silent, _PLACED)


def _without_budget(subject: Subject, passes: pl.LazyFrame) -> Iterator[Finding]:
    probe = subject.table("roots").filter(pl.col("role") == "probe").select("root")
    yield judge("no probe root has a budget", passes.join(probe, on="root", how="semi"), PASS)
    share = subject.setting("verification", "learning_share")
    roots, size = subject.setting("roots", "roots_per_round"), subject.build.get("roots_per_shard")
    check = "no root of the shards that were learned from has a budget"
    if share is None or roots is None or size is None:
        yield not_checkable(check, "the manifest's config does not say which shards these are")
        return
    learns = subject.setting("verification", "ordering") == "expected-yield"
    first = learning_shards(share, -(-roots // size)) if learns else 0
    names = [str(path.relative_to(subject.home.path)) for path in subject.shards("screened")[:first]]
    learned = subject.table("screened").filter(pl.col(FILE).is_in(names)).select("root")
    yield judge(check, passes.join(learned, on="root", how="semi"), PASS, f"the first {first}")
