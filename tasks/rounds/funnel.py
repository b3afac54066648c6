"""The counts of a round, from roots to samples, out of its tables: the build writes them, the audit counts again."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from storage.schemas import TABLES

Frame = pl.DataFrame | pl.LazyFrame

FUNNEL: dict[str, str] = {
    "roots": "roots screened (probe roots included)",
    "positions": "positions above their root's threshold",
    "candidates": "retrieved pairs of position and chunk",
    "excluded": "of these, excluded before verification",
    "verdicts": "pairs verified by the policy",
    "unverified": "pairs left out by the budget of verification",
    "kept": "pairs whose gain passed epsilon",
    "positives": "different pairs of root and chunk among the kept",
    "negatives": "hard negatives that may stand in a sample",
    "samples": "training samples",
}
_COUNTED = ("screened", "positions", "candidates", "verdicts", "negatives", "samples")
BUDGETED = "passes"
"""The table that a round has when its verification had a budget."""
TOKENS: dict[str, str] = {
    "total": "tokens of all samples",
    "root": "of these, in roots",
    "positive": "in verified positives",
    "negative": "in hard negatives",
    "filler": "in other context",
    "document": "in documents and their parts",
    "tag": "in tags that point at them",
    "separator": "between spans, and a BOS where there is one",
}
_KINDS = tuple(kind for kind in TOKENS if kind not in ("total", "separator"))


def funnel_counts(tables: Mapping[str, Frame]) -> dict[str, int]:
    """Every key of ``FUNNEL`` counted from a round's tables (name → whole table, eager or lazy).

    A table that the recipe does not have counts 0; ``unverified`` is counted only where verification had a budget.
    Lazy frames are read in a stream.
    """
    lazy = {name: tables[name].lazy() if name in tables else _empty(name) for name in _COUNTED}
    kept = lazy["verdicts"].filter(pl.col("kept"))
    queries = {
        "roots": lazy["screened"],
        "positions": lazy["positions"],
        "candidates": lazy["candidates"],
        "excluded": lazy["candidates"].filter(pl.col("excluded").is_not_null()),
        "verdicts": lazy["verdicts"],
        "kept": kept,
        "positives": kept.select("root", "chunk").unique(),
        "negatives": lazy["negatives"].filter(pl.col("kept")),
        "samples": lazy["samples"],
    }
    counts = {name: _count(query) for name, query in queries.items()}
    if BUDGETED in tables:
        counts["unverified"] = counts["candidates"] - counts["excluded"] - counts["verdicts"]
    return counts


def token_counts(samples: Frame) -> dict[str, int]:
    """Every key of ``TOKENS`` counted from the samples table."""
    lazy = samples.lazy()
    total = int(lazy.select(pl.col("length").cast(pl.Int64).sum()).collect(engine="streaming").item() or 0)
    spans = (
        lazy.select(pl.col("segments").explode().struct.unnest())
        .drop_nulls("kind")
        .group_by("kind")
        .agg((pl.col("end") - pl.col("start")).cast(pl.Int64).sum().alias("tokens"))
        .collect(engine="streaming")
    )
    by_kind = dict(zip(spans["kind"].to_list(), spans["tokens"].to_list(), strict=True))
    counts = {kind: int(by_kind.get(kind, 0)) for kind in _KINDS}
    return {"total": total, **counts, "separator": total - sum(int(n) for n in by_kind.values())}


def _empty(name: str) -> pl.LazyFrame:
    frame = pl.from_arrow(TABLES[name].arrow.empty_table())
    assert isinstance(frame, pl.DataFrame)
    return frame.lazy()


def _count(query: pl.LazyFrame) -> int:
    return int(query.select(pl.len()).collect(engine="streaming").item())
