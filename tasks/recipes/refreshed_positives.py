"""Control: positives of the current policy, no negatives. Against policylong: what hard negatives add."""

from __future__ import annotations

from tasks.recipes.entropylong import RECIPE as ENTROPYLONG
from tasks.rounds.recipe import Recipe

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
