"""``policylong compare``: several recipes at equal tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows.commands.running import QUICKSTART, Changes, PresetName
from flows.session import Session, messages, results

if TYPE_CHECKING:
    from tasks.comparison.result import Comparison


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(compare)


def compare(
    context: typer.Context,
    recipes: Annotated[
        str, typer.Option(metavar="RECIPE,…", help="Recipes to compare; policylong recipes lists them.")
    ] = "policylong,entropylong,standard",
    seeds: Annotated[int, typer.Option(help="Seeds of every recipe; two or more show a spread.")] = 2,
    tokens: Annotated[
        int | None, typer.Option(help="Budget of every round, in tokens; the preset's build.tokens by default.")
    ] = None,
    preset: PresetName = QUICKSTART,
    name: Annotated[str, typer.Option("--name", help="First part of the arms' names.")] = "compare",
    changes: Changes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train the same base on several recipes at equal tokens and show what each gained on held-out text.

    Every arm is a campaign of its own, called NAME-RECIPE-sSEED. What is finished is not done again: after a stop the
    same command carries on.
    """
    session: Session = context.obj
    session.prepared()
    from flows.overrides import configured
    from flows.presets import load_preset
    from storage.home import Home
    from tasks.comparison.arms import ComparisonConfig

    values = {"name": name, "recipes": _names(recipes), "seeds": seeds, "tokens": tokens}
    config = configured(ComparisonConfig, values, where="compare", hint="See: policylong compare --help")
    chosen = load_preset(preset, changes or [])

    from flows.compare import compare as run_comparison
    from flows.compare import plan, report_path

    for added in plan(Home(session.home), chosen, config).added:
        messages().print(f"Recipe {added} is added: its policies screen another recipe.", highlight=False)
    with session.running() as home:
        found = run_comparison(str(home.path), chosen, config)
    if as_json:
        results().print_json(found.model_dump_json())
    else:
        show(results(), found)
    messages().print(f"report {report_path(home, name)}", style="dim", highlight=False)


def _names(recipes: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in recipes.split(",") if name.strip())


def show(console: Console, found: Comparison) -> None:
    """Prints the tables and what they do not show."""
    from tasks.comparison.report import notes, sections

    for section in sections(found):
        console.print()
        console.print(section.title, style="bold", highlight=False)
        table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
        for column in section.columns:
            table.add_column(column, justify="left" if column == "recipe" else "right", no_wrap=True)
        for row in section.rows:
            table.add_row(*row)
        console.print(table, highlight=False)
    console.print()
    console.print("What this does not show", style="bold")
    for note in notes(found):
        console.print(f"  {note}", highlight=False, markup=False, soft_wrap=True)
