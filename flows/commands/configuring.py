"""``policylong config``: presets, and what every option means."""

from __future__ import annotations

import typer

from flows.commands.running import QUICKSTART, Changes, PresetName, chosen_preset
from flows.session import Session, results


def register(app: typer.Typer) -> None:
    """Adds the group of commands to the application."""
    group = typer.Typer(no_args_is_help=True, help="Look at presets and what every option means.")
    group.command("show")(show)
    group.command("list")(listing)
    app.add_typer(group, name="config")


def show(context: typer.Context, preset: PresetName = QUICKSTART, changes: Changes = None) -> None:
    """Print a preset in full, every option with its meaning; the output is a preset file itself."""
    session: Session = context.obj
    chosen = chosen_preset(session, preset, changes, None)
    from flows.views.explain import explained

    results().print(explained(chosen), highlight=False, markup=False, soft_wrap=True)


def listing(context: typer.Context) -> None:
    """List the presets that come with policylong."""
    session: Session = context.obj
    session.prepared()
    from flows.presets import load_preset, preset_names

    for name in preset_names():
        results().print(f"{name}: {load_preset(name).description}", highlight=False, markup=False, soft_wrap=True)
