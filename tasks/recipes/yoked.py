"""Control: screened by another campaign's policy of the same round. Against policylong: is it its *own* policy?"""

from __future__ import annotations

from tasks.recipes.policylong import RECIPE as POLICYLONG
from tasks.rounds.recipe import Recipe

RECIPE = Recipe(
    name="yoked",
    source="control (docs/method.md 6)",
    summary="positives and hard negatives of another seed's policy of the same round",
    stages=POLICYLONG.stages,
    screener="given",
    sections=POLICYLONG.sections,
    is_control=True,
)
