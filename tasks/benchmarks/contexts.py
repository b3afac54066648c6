"""Verdicts and negatives made up over real roots and chunks: as many contexts as a benchmark wants, without screening.

Which chunk stands before which root is drawn by seed; the texts and their tokens are the corpus's own.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from storage.digests import digest_json
from storage.home import Home
from storage.refs import Ref
from storage.schemas import CANDIDATES, NEGATIVES, VERDICTS
from storage.tables import read_table, write_table

FOLDER = "work/bench"


def drawn_chunks(
    home: Home, roots: Ref, chunks: Ref, rows: range, wanted: int, *, below: int | None = None
) -> dict[int, list[int]]:
    """``wanted`` different chunks (numbers less than ``below``) for each root row, none from its own document."""
    docs = read_table(home.path, chunks, ["doc"])["doc"].to_list()[:below]
    root_docs = read_table(home.path, roots, ["doc"])["doc"].to_list()
    found: dict[int, list[int]] = {}
    for row in rows:
        draw = random.Random(f"contexts:{row}")
        order = draw.sample(range(len(docs)), min(len(docs), 2 * wanted + 64))
        found[row] = [chunk for chunk in order if docs[chunk] != root_docs[row]][:wanted]
    return found


def verdicts_table(home: Home, roots: Ref, chosen: dict[int, list[int]]) -> Ref:
    """A verdicts table in which every chosen chunk helps one token of its root."""
    lengths = [len(ids) for ids in read_table(home.path, roots, ["input_ids"])["input_ids"].to_list()]
    rows: list[dict[str, Any]] = []
    for root, chunks in chosen.items():
        for place, chunk in enumerate(sorted(chunks)):
            rows.append(
                {
                    "root": root,
                    "t": 1 + place % (lengths[root] - 1),
                    "chunk": chunk,
                    "entropy_before": 4.0,
                    "entropy_after": 1.0,
                    "nll_before": 4.0,
                    "nll_after": 1.0,
                    "gain": 0.75,
                    "literal": False,
                    "placebo_gain": None,
                    "kept": True,
                    "reason": None,
                }
            )
    rows.sort(key=lambda row: (row["root"], row["t"], row["chunk"]))
    return write_table(home.path, _uri("verdicts", chosen), VERDICTS, rows)


def negatives_table(home: Home, chosen: dict[int, list[int]], others: dict[int, list[int]]) -> Ref:
    """A negatives table: the chosen chunks of a root share its others out in turns."""
    rows: list[dict[str, Any]] = []
    for root, chunks in chosen.items():
        there = set(chunks)
        for place, chunk in enumerate(dict.fromkeys(c for c in others[root] if c not in there)):
            rows.append(
                {
                    "root": root,
                    "seed_chunk": chunks[place % len(chunks)],
                    "chunk": chunk,
                    "rank": place // len(chunks),
                    "score": 0.5,
                    "max_gain": None,
                    "kept": True,
                    "reason": None,
                }
            )
    rows.sort(key=lambda row: (row["root"], row["seed_chunk"], row["rank"]))
    return write_table(home.path, _uri("negatives", [chosen, others]), NEGATIVES, rows)


def candidates_table(home: Home, chosen: Mapping[int, Sequence[tuple[int, int]]]) -> Ref:
    """A candidates table of (t, chunk) by root row, none excluded."""
    rows = [
        {"root": root, "t": t, "chunk": chunk, "rank": rank, "score": 0.5, "excluded": None}
        for root, pairs in chosen.items()
        for rank, (t, chunk) in enumerate(sorted(pairs))
    ]
    return write_table(home.path, _uri("candidates", list(chosen.items())), CANDIDATES, rows)


def _uri(name: str, identity: Any) -> str:
    keyed = {str(key): value for key, value in identity.items()} if isinstance(identity, dict) else repr(identity)
    return f"{FOLDER}/{name}-{digest_json(keyed)[:16]}.parquet"
