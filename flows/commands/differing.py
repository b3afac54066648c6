"""``policylong diff``: two versions side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.tracing import AsJson, show
from flows.session import Session, results

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tasks.provenance.differences import Differences, Distribution

SHOWN = 60
"""Characters of a value that are shown; ``--json`` has all."""


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(diff)


def diff(
    context: typer.Context,
    first: Annotated[
        str, typer.Argument(metavar="VERSION", help="Round, CAMPAIGN:ROUND, or a dataset version's first characters.")
    ],
    second: Annotated[str, typer.Argument(metavar="VERSION", help="The version to compare it with.")],
    as_json: AsJson = False,
) -> None:
    """Compare two versions: configuration, policy, what stayed, came and went, and the distributions.

    The probe set is screened in every round, so on it the policy is all that differs.
    """
    session: Session = context.obj
    home = session.existing()
    from tasks.provenance.differences import differences

    found = differences(home, first, second)
    if as_json:
        results().print_json(found.model_dump_json())
        return
    show(diff_lines(found))


def diff_lines(found: Differences) -> Iterator[RenderableType]:
    """The differences, block by block."""
    from rich.text import Text

    from storage.digests import short

    if found.first == found.second:
        yield Text(f"both are version {short(found.first)}", style="bold")
    else:
        yield Text(f"version {short(found.first)} → version {short(found.second)}", style="bold")
    section = ""
    for change in found.changes:
        if change.section != section:
            section = change.section
            yield Text(f"\n{section.replace('_', ' ')}", style="bold")
        missing = {"first": ("", " (only in the first)"), "second": ("", " (only in the second)")}
        note = missing[change.only_in][1] if change.only_in else ""
        values = [change.first, change.second]
        if change.only_in is not None:
            shown = _value(values[change.only_in == "second"])
        else:
            shown = f"{_value(values[0])} → {_value(values[1])}"
        yield Text(f"  {change.key}: {shown}{note}")
    for scope, title in (("all", "all roots"), ("probe", "the probe set alone")):
        yield Text(f"\n{title}", style="bold")
        yield from _tables(found, scope)
    for note in found.unknown:
        yield Text(f"not compared: {note}", style="yellow")


def _tables(found: Differences, scope: str) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    overlaps = [overlap for overlap in found.overlaps if overlap.scope == scope]
    if overlaps:
        table = Table("", "first", "second", "stayed", "came", "went", "in both", box=None, header_style="bold")
        for column in table.columns[1:]:
            column.justify = "right"
        for overlap in overlaps:
            counts = (overlap.first, overlap.second, overlap.stayed, overlap.came, overlap.went)
            share = "–" if overlap.share is None else f"{100 * overlap.share:.1f} %"
            table.add_row(overlap.what, *(f"{count:,}" for count in counts), share)
        yield table
        yield Text()
    table = Table("", "", "count", "mean", "25 %", "median", "75 %", box=None, header_style="bold")
    for column in table.columns[2:]:
        column.justify = "right"
    for drift in found.drifts:
        if drift.scope == scope:
            unit = f" ({drift.unit})" if drift.unit else ""
            table.add_row(drift.what + unit, "first", *_numbers(drift.first))
            table.add_row("", "second", *_numbers(drift.second))
    yield table


def _numbers(found: Distribution) -> list[str]:
    values = (found.mean, found.lower, found.median, found.upper)
    return [f"{found.count:,}", *("–" if value is None else _rounded(value) for value in values)]


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"


def _value(value: Any) -> str:
    from tasks.reporting.visible import visible_line

    if isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"):
        return value[:12]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    shown = visible_line(text)
    return shown if len(shown) <= SHOWN else f"{shown[: SHOWN - 1]}…"
