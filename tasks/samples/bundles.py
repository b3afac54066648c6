"""Bundles: what a root brings into a sample, gathered from the tables of its shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

_DEPENDENCY = ("t", "entropy_before", "entropy_after", "gain")


@dataclass(frozen=True, slots=True)
class Dependency:
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
    usable = negatives.lazy().filter(pl.col("kept")).sort("root", "seed_chunk", "rank")
    neighbours: dict[tuple[int, int], list[int]] = {}
    for root, seed, chunk in usable.select("root", "seed_chunk", "chunk").collect().iter_rows():
        neighbours.setdefault((root, seed), []).append(chunk)
    kept = verdicts.lazy().filter(pl.col("kept")).sort("root", "chunk", "t").select("root", "chunk", *_DEPENDENCY)
    dependencies: dict[int, dict[int, list[Dependency]]] = {}
    for root, chunk, *dependency in kept.collect().iter_rows():
        dependencies.setdefault(root, {}).setdefault(chunk, []).append(Dependency(*dependency))
    for root in roots:
        contexts = (
            Context(chunk, tuple(found), tuple(neighbours.get((root, chunk), ())))
            for chunk, found in dependencies.get(root, {}).items()
        )
        yield Bundle(root, tuple(sorted(contexts, key=lambda c: (-c.best_gain, c.chunk))))
