"""``policylong recipes``: the methods, what each does, and where its defaults come from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from flows.session import Session, results

if TYPE_CHECKING:
    from tasks.rounds.recipe import Recipe

_PIPED = 140
"""Characters of a line where there is no terminal that says how long it is."""


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(recipes)


def recipes(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A recipe, to see its stages and defaults.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the methods that build a round; with NAME, its stages and its defaults: the paper's, inferred, or ours.

    The sections are those of docs/method.md.
    """
    session: Session = context.obj
    session.prepared()
    from tasks.recipes import all_recipes, recipe_named
    from tasks.rounds.recipe_listing import recipe_facts

    shown = [recipe_named(name)] if name else list(all_recipes().values())
    if as_json:
        facts = [recipe_facts(recipe) for recipe in shown]
        results().print_json(data=facts[0] if name else facts)
    elif name:
        _show_one(shown[0])
    else:
        _show_list("methods", [recipe for recipe in shown if not recipe.is_control])
        _show_list("controls", [recipe for recipe in shown if recipe.is_control])
        _print("policylong recipes NAME shows the defaults of one; policylong build --recipe NAME makes a round of it.")


def _show_list(title: str, shown: list[Recipe]) -> None:
    from tasks.rounds.recipe_listing import WHO

    table = _table(title, "source", "screened by", "stages", "what")
    for recipe in shown:
        stages = " → ".join(stage.name for stage in recipe.stages)
        table.add_row(Text(recipe.name, "bold"), recipe.source, WHO[recipe.screener], stages, recipe.summary)
    _print_table(table)


def _show_one(recipe: Recipe) -> None:
    from tasks.rounds.marks import MEANING
    from tasks.rounds.recipe_listing import WHO, recipe_defaults

    _print(f"{recipe.name}: {recipe.summary} ({recipe.source}); screened by {WHO[recipe.screener]}")
    results().print()
    stages = _table("stage", "what", "steps")
    for stage in recipe.stages:
        stages.add_row(Text(stage.name, "bold"), stage.summary, ", ".join(step.name for step in stage.steps))
    _print_table(stages)
    table = _table("option", "value", "mark", "section", "meaning")
    for default in recipe_defaults(recipe):
        mark = "recipe" if default.by_recipe else default.mark.kind if default.mark else "–"
        section = default.mark.section if default.mark else "–"
        table.add_row(Text(default.path, "bold"), _value(default.value), mark, section, default.meaning)
    _print_table(table)
    for mark, meaning in MEANING.items():
        _print(f"{mark}: {meaning}")
    _print("recipe: fixed by this recipe")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=place == 0)
    return table


def _print_table(table: Table) -> None:
    console = results()
    if not console.is_terminal:
        console.width = max(console.width, _PIPED)
    console.print(table, highlight=False)
    console.print()


def _value(value: Any) -> Text:
    return Text(json.dumps(value, ensure_ascii=False))


def _print(line: str) -> None:
    results().print(line, highlight=False, markup=False, soft_wrap=True)
