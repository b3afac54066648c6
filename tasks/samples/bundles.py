"""Bundles: what a root brings into a sample, gathered from the tables of its shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl

_DEPENDENCY = ("t", "entropy_before", "entropy_after", "gain")


class Dependency(NamedTuple):
    """A position of a root that a chunk helped (nats; gain as a share)."""

    t: int
    entropy_before: float
    entropy_after: float
    gain: float


@dataclass(frozen=True, slots=True)
class Context:
    """A verified positive with the positions it helped and its hard negatives, nearest first."""

    chunk: int
    dependencies: tuple[Dependency, ...]
    negatives: tuple[int, ...]

    @property
    def best_gain(self) -> float:
        """The largest gain among its positions."""
        return max(dependency.gain for dependency in self.dependencies)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A root with its contexts, the one with the largest gain first (ties by chunk)."""

    root: int
    contexts: tuple[Context, ...]


def bundles_of(roots: range, verdicts: pl.DataFrame, negatives: pl.DataFrame) -> Iterator[Bundle]:
    """One bundle per root, in order of the rows; a root without positives has no contexts."""
    usable = negatives.filter(pl.col("kept")).select("root", "seed_chunk", "rank", "chunk")
    usable = usable.sort("root", "seed_chunk", "rank")
    chunks = usable["chunk"].to_list()
    neighbours = {pair: tuple(chunks[run]) for pair, run in _runs(usable, "root", "seed_chunk")}
    kept = verdicts.filter(pl.col("kept")).select("root", "chunk", *_DEPENDENCY).sort("root", "chunk", "t")
    dependencies = [Dependency(*row) for row in zip(*(kept[name].to_list() for name in _DEPENDENCY), strict=True)]
    contexts: dict[int, list[Context]] = {}
    for (root, chunk), run in _runs(kept, "root", "chunk"):
        context = Context(chunk, tuple(dependencies[run]), neighbours.get((root, chunk), ()))
        contexts.setdefault(root, []).append(context)
    for root in roots:
        yield Bundle(root, tuple(sorted(contexts.get(root, ()), key=lambda c: (-c.best_gain, c.chunk))))


def _runs(frame: pl.DataFrame, *keys: str) -> Iterator[tuple[tuple[int, int], slice]]:
    """The rows of each pair of keys in a frame that is sorted by them."""
    one, two = (frame[key].to_numpy() for key in keys)
    borders = np.flatnonzero((one[1:] != one[:-1]) | (two[1:] != two[:-1])) + 1
    starts = [0, *borders.tolist(), len(frame)] if len(frame) else [0]
    for start, stop in pairwise(starts):
        yield (int(one[start]), int(two[start])), slice(start, stop)
