"""NExtLong: a document's meta-chunks in order, each followed by retrieved hard negatives."""

from __future__ import annotations

from tasks.rounds.recipe import Recipe
from tasks.stages.whole_documents import INTERLEAVING, META_CHUNKS, META_RETRIEVAL
from tasks.whole_documents.nextlong import NextLongOptions, most_tokens

RECIPE = Recipe(
    name="nextlong",
    source="NExtLong, arXiv 2501.12766",
    summary="a document's meta-chunks, each followed by its nearest chunks",
    stages=(META_CHUNKS, META_RETRIEVAL, INTERLEAVING),
    screener="none",
    sections=("assembly",),
    options=NextLongOptions,
    most_tokens=most_tokens,
)
