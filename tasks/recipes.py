"""Recipes: which steps make a round's samples. A recipe is declared here and nowhere branched on.

policylong    positives and hard negatives by the current policy        PolicyLong (arXiv 2604.07809)
entropylong   positives only                                            EntropyLong (2510.02330), repeated every round
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from storage.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Recipe:
    """A method by name: what it changes in the steps' configuration, and where it comes from.

    ``settings`` maps a step's section of the build configuration to fields that the recipe fixes.
    """

    name: str
    source: str
    summary: str
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "policylong", "PolicyLong, arXiv 2604.07809", "verified positives and hard negatives of the current policy"
        ),
        Recipe(
            "entropylong",
            "EntropyLong, arXiv 2510.02330",
            "verified positives only",
            {"negatives": {"negatives_per_positive": 0}},
        ),
    )
}


def recipe_named(name: str) -> Recipe:
    """The recipe; raises ``ConfigError`` naming those there are."""
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}.", hint=f"Recipes: {', '.join(RECIPES)}.")
    return RECIPES[name]
