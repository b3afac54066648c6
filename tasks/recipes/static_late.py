"""Control: every round screened by a finished policy. Against policylong: is it the stage or only a better screener?"""

from __future__ import annotations

from tasks.recipes.policylong import RECIPE as POLICYLONG
from tasks.rounds.recipe import Recipe

RECIPE = Recipe(
    name="static-late",
    source="control (docs/method.md 6)",
    summary="positives and hard negatives of one finished policy in every round",
    stages=POLICYLONG.stages,
    screener="given",
    sections=POLICYLONG.sections,
    is_control=True,
)
