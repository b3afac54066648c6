"""What the tables of a version say about some roots and chunks of one sample, read by joins over the lazy tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tasks.audit.subject import FILE, Subject
from tasks.provenance.token_origins import Document, Place

Row = dict[str, Any]
PAIR = ("root", "t", "chunk")


@dataclass(frozen=True)
class Evidence:
    """Rows about a sample's roots, by root row, position and chunk row."""

    positions: Mapping[tuple[int, int], Row]
    screened: Mapping[int, Row]
    roles: Mapping[int, str]
    answers: tuple[Row, ...]
    """Candidates of these roots among these chunks, with the verdict's columns (null without one)."""
    counts: Mapping[tuple[int, int], tuple[int, int, int]]
    """Position → candidates, excluded, kept, over all chunks."""
    seeds: tuple[Row, ...]
    """Kept rows of ``negatives`` of these roots for these chunks."""
    chunk_ids: Mapping[int, str] = field(default_factory=dict)


def gather(subject: Subject, roots: Mapping[str, Place], chunks: Mapping[str, Place]) -> Evidence:
    """The rows of these roots and chunks; both are given with their rows in ``roots`` and the corpus's chunks."""
    root_rows = [place.row for place in roots.values()]
    chunk_rows = [place.row for place in chunks.values()]
    seeds = _seeds(subject, root_rows, chunk_rows)
    names = {place.row: key for key, place in chunks.items()}
    missing = {row["seed_chunk"] for row in seeds} - names.keys()
    return Evidence(
        positions={(row["root"], row["t"]): row for row in _of_roots(subject, "positions", root_rows)},
        screened={row["root"]: row for row in _of_roots(subject, "screened", root_rows)},
        roles={
            row["root"]: row["role"]
            for row in _rows(subject.table("roots").filter(pl.col("root").is_in(root_rows)).select("root", "role"))
        },
        answers=tuple(_answers(subject, root_rows, chunk_rows)),
        counts=_counts(subject, root_rows),
        seeds=tuple(seeds),
        chunk_ids=names | _named(subject, missing),
    )


def _rows(frame: pl.LazyFrame) -> list[Row]:
    return frame.collect(engine="streaming").to_dicts()


def _of_roots(subject: Subject, table: str, roots: list[int]) -> list[Row]:
    return _rows(subject.table(table).filter(pl.col("root").is_in(roots)).drop(FILE))


def _answers(subject: Subject, roots: list[int], chunks: list[int]) -> list[Row]:
    if not chunks:
        return []
    here = pl.col("root").is_in(roots) & pl.col("chunk").is_in(chunks)
    candidates = subject.table("candidates").filter(here).drop(FILE)
    verdicts = subject.table("verdicts").filter(here).drop(FILE)
    return _rows(candidates.join(verdicts, on=PAIR, how="left").sort(*PAIR))


def _counts(subject: Subject, roots: list[int]) -> dict[tuple[int, int], tuple[int, int, int]]:
    found, excluded, kept = (Counter[tuple[int, int]]() for _ in range(3))
    here = pl.col("root").is_in(roots)
    candidates = subject.table("candidates").filter(here).group_by("root", "t")
    for row in _rows(candidates.agg(pl.len().alias("n"), pl.col("excluded").is_not_null().sum().alias("out"))):
        found[row["root"], row["t"]] = row["n"]
        excluded[row["root"], row["t"]] = row["out"]
    for row in _rows(subject.table("verdicts").filter(here).group_by("root", "t").agg(pl.col("kept").sum())):
        kept[row["root"], row["t"]] = row["kept"]
    return {key: (found[key], excluded[key], kept[key]) for key in found | kept}


def _seeds(subject: Subject, roots: list[int], chunks: list[int]) -> list[Row]:
    if not chunks:
        return []
    here = pl.col("kept") & pl.col("root").is_in(roots) & pl.col("chunk").is_in(chunks)
    return _rows(subject.table("negatives").filter(here).drop(FILE).sort("chunk", "rank", "root", "seed_chunk"))


def _named(subject: Subject, chunks: Iterable[int]) -> dict[int, str]:
    rows = list(chunks)
    if not rows or subject.corpus is None:
        return {}
    found = subject.chunks().filter(pl.col("chunk").is_in(rows)).select("chunk", "chunk_id")
    return {row["chunk"]: row["chunk_id"] for row in _rows(found)}


def neighbours(subject: Subject, documents: Mapping[str, Document]) -> list[tuple[str, str, int, float | None]]:
    """(document, its neighbour, rank, score) where both are among these; nothing for a recipe without neighbours."""
    names = {document.doc: key for key, document in documents.items()}
    if not names or not subject.has("neighbours"):
        return []
    here = pl.col("doc").is_in(list(names)) & pl.col("neighbour").is_in(list(names))
    found = subject.table("neighbours").filter(here).select("doc", "neighbour", "rank", "score").sort("doc", "rank")
    return [(names[row["doc"]], names[row["neighbour"]], row["rank"], row["score"]) for row in _rows(found)]
