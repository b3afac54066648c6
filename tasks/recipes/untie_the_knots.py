"""Untie-the-Knots: long documents cut and shuffled among each other, with tags to trace them back. The cheapest."""

from __future__ import annotations

from tasks.rounds.recipe import Recipe
from tasks.stages.whole_documents import KNOTS
from tasks.whole_documents.knots import KnotsOptions, most_tokens

RECIPE = Recipe(
    name="untie-the-knots",
    source="Untie the Knots (docs/method.md 3)",
    summary="documents cut and shuffled among each other, with tags to trace them back",
    stages=(KNOTS,),
    screener="none",
    sections=("assembly",),
    options=KnotsOptions,
    most_tokens=most_tokens,
)
