"""Standard long data: documents concatenated at random. What every paper compares with."""

from __future__ import annotations

from tasks.rounds.recipe import Recipe
from tasks.stages.whole_documents import CONCATENATION
from tasks.whole_documents.concatenation import StandardOptions, most_tokens

RECIPE = Recipe(
    name="standard",
    source="the papers' baseline (docs/method.md 3)",
    summary="documents concatenated at random",
    stages=(CONCATENATION,),
    screener="none",
    sections=("assembly",),
    options=StandardOptions,
    most_tokens=most_tokens,
)
