"""Standard long data: documents concatenated at random. What every paper compares with."""

from __future__ import annotations

from tasks.concatenation import StandardOptions
from tasks.document_stages import CONCATENATION
from tasks.recipe import Recipe

RECIPE = Recipe(
    name="standard",
    source="the papers' baseline (docs/method.md 3)",
    summary="documents concatenated at random",
    stages=(CONCATENATION,),
    screener="none",
    sections=("assembly",),
    options=StandardOptions,
)
