"""In which order a root's candidates are verified, and where it stops (docs/method.md 2.5, ours).

The unit is a pass: one chunk in front of one root, judged at all positions that retrieved it.

    rank            best rank of the chunk at any position, then its number
    expected-yield  expected positives per token read, largest first, then as above

A root takes its passes in that order and stops when it has its ``quota`` of positives, has made ``passes_per_root``
passes, or comes to a pass whose yield is below ``floor``. The quota is looked at after each wave of ``wave`` passes of
every root, so that batches stay full: a root ends with less than ``quota + wave`` positives. Roots do not see each
other, so a root's passes do not depend on the shard it is in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

PassKey = tuple[int, int]
"""(row of the root, row of the chunk)."""
Reason = Literal["quota", "budget", "floor"]
Measure = Callable[[Sequence["Pass"]], Collection[PassKey]]
"""Makes passes and tells which of them found a positive."""
PER_TOKENS = 1000
"""The floor counts expected positives per so many tokens."""


class Budget(Protocol):
    """Where a root stops (``tasks.screening.verification.VerificationConfig``)."""

    @property
    def quota(self) -> int | None:
        """Positives."""

    @property
    def passes_per_root(self) -> int | None:
        """Passes."""

    @property
    def floor(self) -> float | None:
        """Expected positives per 1,000 tokens."""

    @property
    def wave(self) -> int:
        """Passes of each root between two looks at the quota."""


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass that could be made: ``positions`` of the root that retrieved the chunk, ``rank`` the chunk's best among
    them, ``tokens`` it reads; ``expected`` positives among the positions, None in rank order.
    """

    root: int
    chunk: int
    positions: tuple[int, ...]
    rank: int
    tokens: int
    expected: float | None = None

    @property
    def key(self) -> PassKey:
        """What names it."""
        return self.root, self.chunk

    @property
    def order(self) -> tuple[float, int, int]:
        """Sorts the passes of a root."""
        return (0.0 if self.expected is None else -self.expected / self.tokens, self.rank, self.chunk)

    def below(self, floor: float | None) -> bool:
        """Whether its yield is too small to be worth it."""
        return floor is not None and self.expected is not None and self.expected * PER_TOKENS < floor * self.tokens


@dataclass(frozen=True, slots=True)
class Walk:
    """A root's passes in order: the first ``made`` were made, the rest left out for ``reason`` (None: none is left)."""

    passes: tuple[Pass, ...]
    made: int
    reason: Reason | None

    def rows(self) -> list[dict[str, Any]]:
        """Rows of table ``passes``."""
        return [
            {
                "root": one.root,
                "chunk": one.chunk,
                "place": place,
                "rank": one.rank,
                "tokens": one.tokens,
                "expected": one.expected,
                "verified": place < self.made,
                "reason": self.reason if place >= self.made else None,
            }
            for place, one in enumerate(self.passes)
        ]


def learning_shards(share: float, shards: int) -> int:
    """How many of a round's ``shards``, its first, are verified exhaustively: ``share`` of them, rounded up."""
    return min(shards, math.ceil(share * shards - 1e-9))


def affordable(passes: Sequence[Pass], budget: Budget) -> tuple[int, Reason | None]:
    """How many of a root's ordered passes it may make before any verdict is known, and what stops it there."""
    above = next((place for place, one in enumerate(passes) if one.below(budget.floor)), len(passes))
    if budget.passes_per_root is not None and budget.passes_per_root < above:
        return budget.passes_per_root, "budget"
    return above, "floor" if above < len(passes) else None


def walk(passes: Sequence[Pass], budget: Budget, measure: Measure) -> list[Walk]:
    """Walks every root of a shard at once; ``measure`` is asked once per wave, for the passes of all roots that go on.

    Without a quota there is nothing to look at in between, and all passes are one wave.
    """
    orders: dict[int, list[Pass]] = {}
    for one in sorted(passes, key=lambda one: (one.root, *one.order)):
        orders.setdefault(one.root, []).append(one)
    limits = {root: affordable(order, budget) for root, order in orders.items()}
    made = dict.fromkeys(orders, 0)
    positives = dict.fromkeys(orders, 0)
    wave = budget.wave if budget.quota is not None else max((len(order) for order in orders.values()), default=0)
    while asked := [
        one
        for root, order in orders.items()
        if not _full(positives[root], budget)
        for one in order[made[root] : min(made[root] + wave, limits[root][0])]
    ]:
        for one in asked:
            made[one.root] += 1
        for root, _ in measure(asked):
            positives[root] += 1
    return [
        Walk(tuple(order), made[root], _reason(len(order), made[root], positives[root], limits[root][1], budget))
        for root, order in orders.items()
    ]


def _full(positives: int, budget: Budget) -> bool:
    return budget.quota is not None and positives >= budget.quota


def _reason(passes: int, made: int, positives: int, limit: Reason | None, budget: Budget) -> Reason | None:
    if made == passes:
        return None
    return "quota" if _full(positives, budget) else limit


def expected_of(probabilities: Mapping[PassKey, Sequence[float]]) -> dict[PassKey, float]:
    """Expected positives of each pass: the sum over its positions, to nine decimals, so that an order does not hang on
    the last bits of a sum.
    """
    return {key: round(sum(values), 9) for key, values in probabilities.items()}
