"""Bundles: what a root brings into a sample, gathered from the tables of its shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl


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
    kept = verdicts.filter(pl.col("kept")).sort("root", "chunk", "t").partition_by("root", as_dict=True)
    usable = negatives.filter(pl.col("kept")).sort("root", "seed_chunk", "rank").partition_by("root", as_dict=True)
    for root in roots:
        neighbours: dict[int, list[int]] = {}
        if (root,) in usable:
            for seed, chunk in usable[(root,)].select("seed_chunk", "chunk").iter_rows():
                neighbours.setdefault(seed, []).append(chunk)
        dependencies: dict[int, list[Dependency]] = {}
        if (root,) in kept:
            columns = ("chunk", "t", "entropy_before", "entropy_after", "gain")
            for chunk, t, before, after, gain in kept[(root,)].select(columns).iter_rows():
                dependencies.setdefault(chunk, []).append(Dependency(t, before, after, gain))
        contexts = [
            Context(chunk, tuple(found), tuple(neighbours.get(chunk, ()))) for chunk, found in dependencies.items()
        ]
        yield Bundle(root, tuple(sorted(contexts, key=lambda c: (-c.best_gain, c.chunk))))
