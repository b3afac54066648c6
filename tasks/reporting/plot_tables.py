"""Histograms as tables, and in words."""

from __future__ import annotations

from tasks.reporting.blocks import Table
from tasks.reporting.histograms import Histogram
from tasks.reporting.wording import count, decimal


def bins_table(
    caption: str, unit: str, first: Histogram, name: str, second: Histogram | None = None, other: str = ""
) -> Table:
    """One or two histograms of the same bins as a table, for the fold under its plot."""
    numbers = sorted(first.counts.keys() | (second.counts.keys() if second else set()))
    rows = []
    for number in numbers:
        low, high = first.bounds(number)
        cells = [count(one.counts.get(number, 0)) for one in (first, second) if one is not None]
        rows.append((f"{decimal(low)} to {decimal(high)}", *cells))
    return Table(caption, (unit, name, *([other] if second else [])), tuple(rows))


def middle(name: str, found: Histogram) -> str:
    """Where a histogram's median lies, in words."""
    half, seen = found.total / 2, 0
    for number in sorted(found.counts):
        seen += found.counts[number]
        if seen >= half and found.total:
            low, high = found.bounds(number)
            return f"{name}: {count(found.total)}, the median between {decimal(low)} and {decimal(high)}."
    return f"{name}: none."
