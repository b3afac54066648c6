"""``policylong bench``: what things cost on this machine, each beside its alternative."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from flows.session import Session, messages, results


class What(StrEnum):
    """What is measured."""

    scoring = "scoring"
    retrieval = "retrieval"
    assembly = "assembly"
    round = "round"
    yields = "yield"
    scale = "scale"
    all = "all"


class HowMuch(StrEnum):
    """How much work a measurement does."""

    small = "small"
    full = "full"


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(bench)


def bench(
    context: typer.Context,
    what: Annotated[What, typer.Argument(help="One of them, or all but scale.")] = What.all,
    size: Annotated[
        HowMuch, typer.Option(help="full is what docs/performance.md reports; small shows that it works.")
    ] = HowMuch.full,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every engine.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure speed and memory on this machine, each figure beside its alternative in the same run.

    Works in the folder "bench" of the home, on the text of the installed Python packages and the model that comes
    along; the first time it embeds them.
    """
    import os

    load_before = os.getloadavg()[0]
    outer: Session = context.obj
    session = Session(outer.home / "bench", verbose=outer.verbose).prepared()

    def tell(name: str, seconds: float) -> None:
        messages().print(f"{name}: {seconds:.0f} s", style="dim", highlight=False)

    with session.running() as home:
        from flows.benching import IN_ALL, NAMES
        from flows.benching import bench as measure
        from tasks.benchmarks.sizes import SIZES

        names = IN_ALL if what is What.all else tuple(name for name in NAMES if name == what.value)
        report = measure(home, names, SIZES[size.value], threads, load_before, tell=tell)
    if as_json:
        results().print_json(report.model_dump_json())
        return
    from flows.views.benchmarks import show_report

    show_report(results(), report)
