"""KNN: a document followed by its nearest neighbours."""

from __future__ import annotations

from tasks.document_stages import NEIGHBOUR_CONCATENATION, NEIGHBOURS
from tasks.neighbours import KnnOptions
from tasks.recipe import Recipe

RECIPE = Recipe(
    name="knn",
    source="the papers' baseline (docs/method.md 3)",
    summary="a document followed by its nearest neighbours",
    stages=(NEIGHBOURS, NEIGHBOUR_CONCATENATION),
    screener="none",
    sections=("assembly",),
    options=KnnOptions,
)
