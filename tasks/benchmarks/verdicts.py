"""Verdicts of two ways to score the same passes, compared pair by pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.benchmarks.literal import one_each, same_passes
from tasks.benchmarks.scene import Judged, Reader
from tasks.screening.verification import relative_gain

Gains = Mapping[tuple[int, int, int], float]
"""(root, t, chunk) → relative loss of entropy."""

NEAR = 1e-4
"""Gains as near as this to epsilon may fall on either side: the last bits of an entropy decide."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many verdicts are equal; of those that are not, how many are near the limit."""

    pairs: int
    near: int
    different_near: int
    different: int

    def conditions(self) -> dict[str, int]:
        """For a measurement."""
        return {
            "verdicts compared": self.pairs,
            f"within {NEAR:g} of epsilon": self.near,
            "of these different": self.different_near,
            "different otherwise": self.different,
        }


def compared(one: Gains, other: Gains, epsilon: float) -> Agreement:
    """Compares two sets of gains of the same pairs; raises ``ValueError`` when the pairs are not the same."""
    if one.keys() != other.keys():
        raise ValueError("the two ways judged different pairs")
    near = different_near = different = 0
    for pair, gain in one.items():
        at_limit = min(abs(gain - epsilon), abs(other[pair] - epsilon)) < NEAR
        unequal = (gain > epsilon) != (other[pair] > epsilon)
        near += at_limit
        different_near += at_limit and unequal
        different += unequal and not at_limit
    return Agreement(len(one), near, different_near, different)


def gains_by_engine(reader: Reader, work: Judged) -> dict[tuple[int, int, int], float]:
    """Gains by the scoring engine: a pass per root, a pass per unique pair."""
    rows = list(work.roots)
    alone = reader.scorer.score([work.roots[row] for row in rows])
    before = {
        (row, position - len(reader.bos)): entropy
        for row, score in zip(rows, alone, strict=True)
        for position, entropy in zip(work.roots[row].positions, score.entropy.tolist(), strict=True)
    }
    after = reader.scorer.score(work.contexts)
    return {
        (pair.root, t, pair.chunk): relative_gain(before[pair.root, t], entropy)
        for pair, score in zip(work.pairs, after, strict=True)
        for t, entropy in zip(pair.positions, score.entropy.tolist(), strict=True)
    }


def gains_by_the_letter(
    reader: Reader, work: Judged, *, cut: bool, beside: bool = False
) -> dict[tuple[int, int, int], float]:
    """Gains with a pass per position and candidate, and the logits of whole sequences; ``cut`` as in ``one_each``,
    ``beside`` with as many batches at once as the engine.
    """
    rows = list(work.roots)
    model = reader.beside if beside else reader.full
    alone = model.entropies(same_passes([work.roots[row] for row in rows]))
    before = {
        (row, position - len(reader.bos)): entropy
        for row, entropies in zip(rows, alone, strict=True)
        for position, entropy in zip(work.roots[row].positions, entropies, strict=True)
    }
    after = iter(model.entropies(one_each(work.contexts, cut=cut)))
    return {
        (pair.root, t, pair.chunk): relative_gain(before[pair.root, t], next(after)[0])
        for pair in work.pairs
        for t in pair.positions
    }
