"""Bundles: what a root brings into a sample, gathered from the tables of its shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

VERDICT_COLUMNS = ("root", "chunk", "t", "entropy_before", "entropy_after", "gain", "kept")
NEGATIVE_COLUMNS = ("root", "seed_chunk", "rank", "chunk", "kept")


class Dependencies(NamedTuple):
    """Positions of a shard's roots that chunks helped (nats; gain as a share), as columns: there are many."""

    t: list[int]
    entropy_before: list[float]
    entropy_after: list[float]
    gain: list[float]


class Context(NamedTuple):
    """A verified positive of a root, with its largest gain, its rows of the bundle's dependencies, and its hard
    negatives, nearest first.
    """

    root: int
    chunk: int
    best_gain: float
    rows: range
    negatives: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A root with its contexts, the one with the largest gain first (ties by chunk), and its shard's dependencies."""

    root: int
    contexts: tuple[Context, ...]
    dependencies: Dependencies


def bundles_of(roots: range, verdicts: pl.DataFrame, negatives: pl.DataFrame) -> Iterator[Bundle]:
    """One bundle per root, in order of the rows; a root without positives has no contexts.

    ``verdicts`` has ``VERDICT_COLUMNS``, ``negatives`` has ``NEGATIVE_COLUMNS``.
    """
    near = negatives.filter("kept").sort("root", "seed_chunk", "rank")
    kept = verdicts.filter("kept").sort("root", "chunk", "t")
    neighbours = tuple(near["chunk"].to_list())
    dependencies = Dependencies(*(kept[name].to_list() for name in Dependencies._fields))
    pairs, seeds = _pairs(kept, "root", "chunk"), _pairs(near, "root", "seed_chunk")
    starts = np.flatnonzero(np.diff(pairs, prepend=-1))
    root, chunk = (kept[name].to_numpy()[starts] for name in ("root", "chunk"))
    gain = np.maximum.reduceat(kept["gain"].to_numpy(), starts) if len(starts) else np.empty(0)
    columns = (
        root,
        chunk,
        gain,
        starts,
        np.append(starts[1:], len(kept)),
        np.searchsorted(seeds, pairs[starts], "left"),
        np.searchsorted(seeds, pairs[starts], "right"),
    )
    order = np.lexsort((chunk, -gain, root))
    contexts = [
        Context(row, positive, best, range(first, stop), neighbours[nearest:end])
        for row, positive, best, first, stop, nearest, end in zip(*(c[order].tolist() for c in columns), strict=True)
    ]
    borders = np.searchsorted(root, np.arange(roots.start, roots.stop + 1)).tolist()
    for row, (first, stop) in zip(roots, pairwise(borders), strict=True):
        yield Bundle(row, tuple(contexts[first:stop]), dependencies)


def _pairs(frame: pl.DataFrame, one: str, two: str) -> NDArray[np.int64]:
    """Two columns of row numbers as one number a row, which sorts as the pair does."""
    high, low = (frame[name].to_numpy().astype(np.int64) for name in (one, two))
    return (high << 32) + low
