"""KNN: a document followed by its nearest neighbours."""

from __future__ import annotations

from tasks.rounds.recipe import Recipe
from tasks.stages.whole_documents import NEIGHBOUR_CONCATENATION, NEIGHBOURS
from tasks.whole_documents.neighbours import KnnOptions, most_tokens

RECIPE = Recipe(
    name="knn",
    source="the papers' baseline (docs/method.md 3)",
    summary="a document followed by its nearest neighbours",
    stages=(NEIGHBOURS, NEIGHBOUR_CONCATENATION),
    screener="none",
    sections=("assembly",),
    options=KnnOptions,
    most_tokens=most_tokens,
)
