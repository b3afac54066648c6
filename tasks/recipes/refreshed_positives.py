"""Control: positives of the current policy, no negatives. Against policylong: what hard negatives add."""

from __future__ import annotations

from tasks.recipe import Recipe
from tasks.recipes.entropylong import RECIPE as ENTROPYLONG

RECIPE = Recipe(
    name="refreshed-positives",
    source="control (docs/method.md 6)",
    summary="positives of the current policy, no negatives",
    stages=ENTROPYLONG.stages,
    screener="current",
    sections=ENTROPYLONG.sections,
    settings=ENTROPYLONG.settings,
    is_control=True,
)
