"""What a recipe does and where each of its defaults comes from, as plain data: for the command line and the docs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tasks.recipes import resolved
from tasks.rounds.building import BuildConfig
from tasks.rounds.marks import Mark, options_of, section_of
from tasks.rounds.recipe import Recipe, Screener

WHO: dict[Screener, str] = {
    "current": "the policy that is trained",
    "base": "the base model",
    "given": "a given policy",
    "none": "nobody",
}
"""Who screens, in words."""

_OF_EVERY_RECIPE = ("rounds", "tokens")
_OF_SCREENING = ("lag", "screening_tokens", "roots_per_shard", "numeric")


@dataclass(frozen=True, slots=True)
class Default:
    """An option of a recipe with the value it has unless a preset says otherwise."""

    path: str
    """Where it stands in a preset."""
    value: Any
    by_recipe: bool
    """The recipe fixes it: the value is not the option's own default, and the mark is not about it."""
    mark: Mark | None
    meaning: str


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON: name, source, kind, who screens, stages with their steps."""
    return {
        "name": recipe.name,
        "source": recipe.source,
        "summary": recipe.summary,
        "control": recipe.is_control,
        "screener": recipe.screener,
        "stages": [
            {"name": stage.name, "summary": stage.summary, "steps": [step.name for step in stage.steps]}
            for stage in recipe.stages
        ],
        "defaults": [
            {
                "option": default.path,
                "value": default.value,
                "by_recipe": default.by_recipe,
                "mark": default.mark.kind if default.mark else None,
                "section": default.mark.section if default.mark else None,
                "meaning": default.meaning,
            }
            for default in recipe_defaults(recipe)
        ],
    }


def recipe_defaults(recipe: Recipe) -> Iterator[Default]:
    """Every option that a recipe reads: of every recipe, of its sections, and its own; values as JSON has them.

    Of a section that it only fixes something in, what it fixes.
    """
    config, options = resolved(BuildConfig(recipe=recipe.name))
    own = BuildConfig.model_fields
    names = [*_OF_EVERY_RECIPE, *(_OF_SCREENING if recipe.screener != "none" else ()), *recipe.sections]
    for name in dict.fromkeys(names):
        section = section_of(own[name].annotation)
        if section is None:
            yield from (d for d in _defaults(BuildConfig, "build", config, {}) if d.path == f"build.{name}")
        else:
            yield from _defaults(section, f"build.{name}", getattr(config, name), recipe.settings.get(name, {}))
    for name in recipe.settings.keys() - set(names):
        values = getattr(config, name)
        yield from (d for d in _defaults(type(values), f"build.{name}", values, recipe.settings[name]) if d.by_recipe)
    yield from _defaults(recipe.options, "build.options", options, {})


def _defaults(model: type[BaseModel], path: str, values: BaseModel, fixed: dict[str, Any]) -> Iterator[Default]:
    document = values.model_dump(mode="json")
    for option in options_of(model, path):
        keys = option.path.removeprefix(f"{path}.").split(".")
        value: Any = document
        for key in keys:
            value = value.get(key, option.default)  # an option that is off may be in no dump
        yield Default(option.path, value, keys[0] in fixed, option.mark, option.meaning)
