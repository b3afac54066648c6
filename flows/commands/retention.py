"""``policylong gc``: what a home no longer needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.tracing import AsJson
from flows.session import Session, results

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from tasks.retention.plan import Plan

UNITS = ("bytes", "kB", "MB", "GB", "TB")


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(gc)


def gc(
    context: typer.Context,
    apply: Annotated[bool, typer.Option("--apply", help="Remove it; without this it is only listed.")] = False,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="CAMPAIGN", help="Keep only this campaign; may be given several times."),
    ] = None,
    keep_rounds: Annotated[
        int | None,
        typer.Option(
            "--keep-rounds", min=1, metavar="N", help="Keep only the last N rounds of each finished campaign."
        ),
    ] = None,
    versions: Annotated[
        bool, typer.Option("--versions", help="Remove versions that are not kept, not only what they needed.")
    ] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Remove the work of what was begun and not finished as well.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List, and with --apply remove, what no kept version needs; every removal leaves a tombstone.

    Without options every version is kept: what goes are intermediate tables, old checkpoints of trainings, policies
    that no campaign or version names, and what killed processes left.
    """
    session: Session = context.obj
    home = session.existing()
    from tasks.retention.collecting import collect
    from tasks.retention.plan import Keep

    wanted = Keep(campaigns=tuple(keep or ()), rounds=keep_rounds, versions=versions, unfinished=unfinished)
    plan = collect(home, wanted, apply=apply)
    if as_json:
        results().print_json(plan.model_dump_json())
        return
    for line in plan_lines(plan):
        results().print(line, highlight=False, soft_wrap=True)


def plan_lines(plan: Plan) -> Iterator[RenderableType]:
    """What goes, why, and what stays."""
    from rich.table import Table
    from rich.text import Text

    if plan.removals:
        table = Table("", "", "files", "gives back", "reason", box=None, header_style="bold")
        table.columns[2].justify = table.columns[3].justify = "right"
        for removal in plan.removals:
            table.add_row(
                removal.kind, removal.uri, f"{len(removal.files):,}", size_text(removal.bytes), removal.reason
            )
        yield table
    for line in plan.stays:
        yield Text(f"stays: {line}")
    did = "removed" if plan.applied else "would be removed"
    total = f"{plan.files:,} files {did}, {size_text(plan.bytes)}"
    if not plan.removals:
        yield Text("nothing to remove", style="bold")
    elif plan.applied:
        yield Text(f"{total}; tombstones/ says what and why", style="bold")
    else:
        yield Text(f"{total}; nothing was removed: add --apply", style="bold")


def size_text(count: int) -> str:
    """Bytes for people, in powers of ten."""
    size, unit = float(count), 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {UNITS[unit]}" if unit == 0 or size >= 100 else f"{size:.1f} {UNITS[unit]}"
