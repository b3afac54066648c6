"""EntropyLong: positives only, screened once by the base model. What is left of a sample is random chunks."""

from __future__ import annotations

from tasks.rounds.recipe import Recipe
from tasks.stages.screened import FILLED_ASSEMBLY, FILLERS, SCREENING, SCREENING_SECTIONS

RECIPE = Recipe(
    name="entropylong",
    source="EntropyLong, arXiv 2510.02330",
    summary="verified positives of the base model",
    stages=(*SCREENING, FILLERS, FILLED_ASSEMBLY),
    screener="base",
    sections=(*SCREENING_SECTIONS, "fillers", "assembly"),
    settings={"negatives": {"negatives_per_positive": 0}},
)
