"""Control: positives and hard negatives of the base model. Against policylong: what refreshing adds."""

from __future__ import annotations

from tasks.recipes.policylong import RECIPE as POLICYLONG
from tasks.rounds.recipe import Recipe

RECIPE = Recipe(
    name="static-with-negatives",
    source="control (docs/method.md 6)",
    summary="positives and hard negatives of the base model in every round",
    stages=POLICYLONG.stages,
    screener="base",
    sections=POLICYLONG.sections,
    is_control=True,
)
