"""Control: EntropyLong in the rounds of a campaign. Against policylong: what refreshing and negatives add together."""

from __future__ import annotations

from tasks.recipes.entropylong import RECIPE as ENTROPYLONG
from tasks.rounds.recipe import Recipe

RECIPE = Recipe(
    name="static-positives",
    source="control (docs/method.md 6)",
    summary="positives of the base model in every round, no negatives: entropylong by another name",
    stages=ENTROPYLONG.stages,
    screener="base",
    sections=ENTROPYLONG.sections,
    settings=ENTROPYLONG.settings,
    is_control=True,
)
