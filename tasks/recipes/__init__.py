"""All recipes, one file each; found by listing this folder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from storage.errors import ConfigError
from tasks.rounds.building import BuildConfig
from tasks.rounds.recipe import Recipe


@cache
def all_recipes() -> Mapping[str, Recipe]:
    """Name → recipe, papers' methods first, then controls, each by name."""
    found: dict[str, Recipe] = {}
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        recipe = loaded.RECIPE
        assert isinstance(recipe, Recipe), f"{loaded.__name__}.RECIPE is no recipe"
        assert recipe.name not in found, f"two recipes are called {recipe.name}"
        found[recipe.name] = recipe
    return {recipe.name: recipe for recipe in sorted(found.values(), key=lambda r: (r.is_control, r.name))}


def recipe_named(name: str) -> Recipe:
    """The recipe; raises ``ConfigError`` naming those there are."""
    known = all_recipes()
    if name not in known:
        raise ConfigError(f"unknown recipe {name!r} (build.recipe).", hint=f"Recipes: {', '.join(known)}.")
    return known[name]


def resolved(config: BuildConfig) -> tuple[BuildConfig, BaseModel]:
    """The configuration with the recipe's own settings put in, and its options, defaults filled in.

    Raises ``ConfigError`` for an unknown recipe or an option it does not have.
    """
    recipe = recipe_named(config.recipe)
    try:
        options = recipe.options.model_validate(config.options)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(recipe.options.model_fields) or "none"
        raise ConfigError(
            f"build.options.{name} of recipe {recipe.name}: {first['msg']}.", hint=f"Its options: {known}."
        ) from error
    update: dict[str, Any] = {"options": options.model_dump(mode="json")}
    for section, fields in recipe.settings.items():
        update[section] = getattr(config, section).model_copy(update=fields)
    return config.model_copy(update=update), options
