"""What is known of a pair of position and candidate before any verification pass (docs/method.md 2.5, ours).

Entropy falls where the candidate shows the policy what comes next, and most often because the words before the position
stand in it; how likely that is can be read from the texts, the search and the entropy pass alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

FEATURES: Mapping[str, str] = {
    "rank": "ln(1 + rank of the chunk at the position)",
    "score": "cosine of chunk and query",
    "margin": "standard deviations of the position's entropy above the root's mean",
    "entropy": "nats at the position, without the chunk",
    "length": "ln(tokens of the chunk)",
    "literal": "1 where the bigram before and at the position stands in the chunk",
    "run_before": "tokens of the longest run that ends before the position and stands in the chunk",
    "run_through": "tokens of the longest run that ends at the position and stands in the chunk",
    "one_follower": "1 where one and the same token follows the longest run wherever it stands in the chunk",
    "right_follower": "share of these places where it is the position's own token",
    "overlap": "share of the different tokens around the position that stand in the chunk, rare ones counting more",
    "overlap_before": "the same of those before the position alone",
}
"""Feature → what it is, in the order of the columns."""
WINDOW = 16
"""Tokens to each side that count as around the position: the papers' query (docs/method.md 2.3)."""
LONGEST = 6
"""Runs are compared up to so many tokens. Ours: longer ones told nothing more."""
COMMON = 0.1
"""Weight of a token that every candidate of the root holds, where one that none holds has ln(candidates + 1) more."""

Tokens = Callable[[int], Sequence[int]]
"""Tokens of a root or chunk by its row."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """A chunk's tokens with the places where each stands."""

    ids: tuple[int, ...]
    places: Mapping[int, tuple[int, ...]]

    @classmethod
    def of(cls, ids: Sequence[int]) -> Indexed:
        """Indexes a chunk."""
        places: dict[int, list[int]] = {}
        for place, token in enumerate(ids):
            places.setdefault(token, []).append(place)
        return cls(tuple(ids), {token: tuple(found) for token, found in places.items()})


def longest_run(text: Sequence[int], end: int, chunk: Indexed) -> tuple[int, list[int]]:
    """Length (at most ``LONGEST``) of the longest run of tokens that ends before ``text[end]`` and stands in the
    chunk, and the places in the chunk where its last token stands.
    """
    best, places = 0, []
    for place in chunk.places.get(text[end - 1], ()) if end else ():
        length = 1
        most = min(LONGEST, end, place + 1)
        while length < most and chunk.ids[place - length] == text[end - 1 - length]:
            length += 1
        if length > best:
            best, places = length, [place]
        elif length == best:
            places.append(place)
    return best, places


@dataclass(frozen=True)
class Evidence:
    """Features of pairs; roots and chunks are read as tokens, by row."""

    root_ids: Tokens
    chunk_ids: Tokens
    _indexed: Callable[[int], Indexed] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        indexed = lru_cache(maxsize=4096)(lambda chunk: Indexed.of(self.chunk_ids(chunk)))
        object.__setattr__(self, "_indexed", indexed)

    def features(self, candidates: pl.DataFrame, positions: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.float64]]:
        """Pairs (root, chunk, t, rank) by root, chunk and t, of whole roots and without excluded ones, and their
        features, float64 [pairs, features].
        """
        known = positions.select("root", "t", "entropy", "mean", "std")
        pairs = candidates.filter(pl.col("excluded").is_null()).join(known, on=["root", "t"]).sort("root", "chunk", "t")
        found = np.zeros((len(pairs), len(FEATURES)), np.float64)
        rarity: dict[int, float] = {}
        absent, at, chunks_of = 0.0, -1, _chunks_of_roots(pairs)
        columns = pairs.select("root", "chunk", "t", "rank", "score", "entropy", "mean", "std")
        for number, (root, chunk, t, rank, score, entropy, mean, std) in enumerate(columns.iter_rows()):
            if root != at:
                rarity, absent = self._rarity(chunks_of[root])
                at = root
            ids, there = self.root_ids(root), self._indexed(chunk)
            before, through = longest_run(ids, t, there), longest_run(ids, t + 1, there)
            followers = Counter(there.ids[place + 1] for place in before[1] if place + 1 < len(there.ids))
            seen = sum(followers.values())
            around, front = set(ids[max(0, t - WINDOW) : t + WINDOW + 1]), set(ids[max(0, t - WINDOW) : t])
            found[number] = (
                math.log1p(rank),
                score,
                (entropy - mean) / std if std > 0 else 0.0,
                entropy,
                math.log(max(1, len(there.ids))),
                float(through[0] >= 2),
                before[0],
                through[0],
                float(len(followers) == 1),
                followers[ids[t]] / seen if seen else 0.0,
                _share(around, there, rarity, absent),
                _share(front, there, rarity, absent),
            )
        return pairs.select("root", "chunk", "t", "rank"), found

    def _rarity(self, chunks: Sequence[int]) -> tuple[dict[int, float], float]:
        """Weight of each token that stands in a candidate of the root, and of one that stands in none."""
        holding = Counter(token for chunk in chunks for token in self._indexed(chunk).places)
        weights = {token: math.log((len(chunks) + 1) / (count + 1)) + COMMON for token, count in holding.items()}
        return weights, math.log(len(chunks) + 1) + COMMON


def _chunks_of_roots(pairs: pl.DataFrame) -> dict[int, list[int]]:
    grouped = pairs.group_by("root", maintain_order=True).agg(pl.col("chunk").unique(maintain_order=True))
    return dict(grouped.iter_rows())


def _share(tokens: set[int], chunk: Indexed, rarity: Mapping[int, float], absent: float) -> float:
    # Sorted: a sum of floats depends on its order, and a set has none.
    weights = [(rarity.get(token, absent), token in chunk.places) for token in sorted(tokens)]
    total = sum(weight for weight, _ in weights)
    return sum(weight for weight, there in weights if there) / total if total > 0 else 0.0
