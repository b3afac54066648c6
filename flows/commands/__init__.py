"""The commands, one module a group: each has ``register(app)``, and is found by listing this folder."""

from __future__ import annotations

import importlib
import pkgutil

import typer

FIRST = "running"  # its commands stand first on the help page


def register_all(app: typer.Typer) -> None:
    """Adds every command to the application; a second time changes nothing."""
    if app.registered_commands:
        return
    names = sorted((module.name for module in pkgutil.iter_modules(__path__)), key=lambda name: (name != FIRST, name))
    for name in names:
        importlib.import_module(f"{__name__}.{name}").register(app)
