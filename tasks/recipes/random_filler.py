"""Control: random chunks in place of hard negatives. Against policylong: what their hardness adds."""

from __future__ import annotations

from tasks.rounds.recipe import Recipe
from tasks.stages.screened import FILLED_ASSEMBLY, FILLERS, SCREENING, SCREENING_SECTIONS

RECIPE = Recipe(
    name="random-filler",
    source="control (docs/method.md 6)",
    summary="positives of the current policy, random chunks in place of negatives",
    stages=(*SCREENING, FILLERS, FILLED_ASSEMBLY),
    screener="current",
    sections=(*SCREENING_SECTIONS, "negatives", "fillers", "assembly"),
    is_control=True,
)
