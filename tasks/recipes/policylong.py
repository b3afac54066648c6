"""PolicyLong: everything by the current policy, round after round."""

from __future__ import annotations

from tasks.rounds.recipe import Recipe
from tasks.stages.screened import ASSEMBLY, NEGATIVE_VERIFICATION, NEGATIVES, SCREENING, SCREENING_SECTIONS

RECIPE = Recipe(
    name="policylong",
    source="PolicyLong, arXiv 2604.07809",
    summary="verified positives and hard negatives of the current policy",
    stages=(*SCREENING, NEGATIVES, NEGATIVE_VERIFICATION, ASSEMBLY),
    screener="current",
    sections=(*SCREENING_SECTIONS, "negatives", "negative_verification", "assembly"),
)
