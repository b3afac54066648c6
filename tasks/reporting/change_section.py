"""The part of a round's page about the round before: sets and distributions side by side, what was set otherwise."""

from __future__ import annotations

import json

from pydantic import JsonValue

from tasks.provenance.differences import Change, Distribution, Drift, Overlap
from tasks.reporting.blocks import Block, Command, Heading, Plot, Plots, Section, Table, prose
from tasks.reporting.charts import histogram_chart
from tasks.reporting.drift import RoundDrift
from tasks.reporting.measured import number_of
from tasks.reporting.plot_tables import bins_table
from tasks.reporting.round_view import RoundView
from tasks.reporting.wording import count, decimal, share

TITLE = "What changed since the round before"
OVERLAP_COLUMNS = ("What", "Before", "Now", "Stayed", "Came", "Went", "Common")
NULLS = {
    "null_same": "the same policy read again",
    "null_standard": "a policy trained as long on ordinary data",
}


def change(view: RoundView) -> Section:
    """The comparison, or why there is none."""
    drift = view.drift
    if isinstance(drift, str):
        return Section("change", TITLE, (prose(drift, note=True),))
    before, now = view.round_of(drift.found.first), f"round {view.number}"
    blocks: list[Block] = [
        Heading("On the probe set"),
        prose(
            "These roots are screened in every round, so here the policy is all that differs. Common is the share of"
            f" those in both among those in either. Before: {before}. Now: {now}."
        ),
        *_sets(drift, "probe", "The probe set in both rounds"),
        Plots((_entropies(drift, before, now), _gains(drift, before, now))),
        _side_by_side(drift, "probe", "Figures of the probe set side by side"),
        *_nulls(view),
        Heading("Over all roots"),
        prose("Rounds take other roots, so over all of them little can stay; the distributions compare all the same."),
        *_sets(drift, "all", "All roots in both rounds"),
        _side_by_side(drift, "all", "Figures of all roots side by side"),
        Heading("How the rounds were made"),
        *_settings(drift.settings),
        *(prose(f"Not compared: {note}.", note=True) for note in drift.found.unknown),
        Command((f"policylong diff {drift.found.first[:12]} {drift.found.second[:12]}",)),
    ]
    return Section("change", TITLE, tuple(blocks))


def overlap_row(name: str, overlap: Overlap) -> tuple[str, ...]:
    """An overlap as a row of ``OVERLAP_COLUMNS``."""
    numbers = (overlap.first, overlap.second, overlap.stayed, overlap.came, overlap.went)
    return (name, *map(count, numbers), share(overlap.share))


def _sets(drift: RoundDrift, scope: str, caption: str) -> list[Block]:
    found = [one for one in drift.overlaps(scope) if one.first + one.second]
    if not found:
        return [prose("Neither round has anything here to compare.", note=True)]
    names = {
        "positions": "uncertain tokens",
        "positives": "positives (root and passage)",
        "negatives": "hard negatives (root and passage)",
    }
    return [Table(caption, OVERLAP_COLUMNS, tuple(overlap_row(names.get(one.what, one.what), one) for one in found))]


def _entropies(drift: RoundDrift, before: str, now: str) -> Plot:
    first, second = drift.probe_entropy
    chart = histogram_chart(
        "chart-probe-entropy",
        "Entropy of the probe set's uncertain tokens",
        f"Two histograms over each other: bars for {now}, a dashed outline for {before}.",
        "entropy, nats",
        [(now, second), (before, first)],
    )
    return Plot(chart, bins_table("The probe set's uncertain tokens, counted", "Nats", second, now, first, before))


def _gains(drift: RoundDrift, before: str, now: str) -> Plot:
    first, second = drift.kept_gain
    chart = histogram_chart(
        "chart-kept-gain",
        "Gain of the kept pairs, all roots",
        f"Two histograms over each other: bars for {now}, a dashed outline for {before}.",
        "gain",
        [(now, second), (before, first)],
    )
    return Plot(chart, bins_table("Kept pairs, counted", "Gain", second, now, first, before))


def _side_by_side(drift: RoundDrift, scope: str, caption: str) -> Table:
    rows = []
    for one in drift.drifts(scope):
        for when, side in (("before", one.first), ("now", one.second)):
            rows.append((f"{_named(one)}, {when}", *_numbers(side)))
    return Table(caption, ("Figure", "Count", "Mean", "Lower quarter", "Median", "Upper quarter"), tuple(rows))


def _named(drift: Drift) -> str:
    return f"{drift.what} ({drift.unit})" if drift.unit else drift.what


def _numbers(side: Distribution) -> tuple[str, ...]:
    values = (side.mean, side.lower, side.median, side.upper)
    return (count(side.count), *(decimal(value, 0 if (value or 0) >= 100 else 3) for value in values))


def _nulls(view: RoundView) -> list[Block]:
    """How much the probe set changes by itself, where that was measured."""
    rows = [
        (
            words,
            *(share(number_of(view.record, f"{prefix}_{what}")) for what in ("overlap_positions", "overlap_positives")),
        )
        for prefix, words in NULLS.items()
        if number_of(view.record, f"{prefix}_overlap_positions") is not None
    ]
    if not rows:
        return []
    columns = ("Beside this round's policy", "Uncertain tokens common", "Verdicts common")
    return [Table("How much would change anyway", columns, tuple(rows))]


def _settings(changes: list[Change]) -> list[Block]:
    if not changes:
        return [prose("With the same settings, the same code and in the same numeric environment.")]
    rows = tuple(
        (f"{one.section}: {one.key}".replace("_", " "), _value(one.first), _value(one.second)) for one in changes
    )
    return [Table("What was set otherwise", ("Setting", "Before", "Now"), rows, words=frozenset({1, 2}))]


def _value(value: JsonValue) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"
