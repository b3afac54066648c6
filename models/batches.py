"""Contexts put together for one forward pass: a row each, padded on the right, or all of them end to end in one row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Context:
    """What is put before the model: ``ids`` (tokens) and the indices in it whose predictions are scored, each at least
    1.
    """

    ids: Sequence[int]
    positions: Sequence[int]

    @property
    def needed(self) -> int:
        """Tokens that have to be read: up to the one before the last position."""
        return max(self.positions)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some contexts as the model reads them, and where their predictions stand."""

    contexts: list[int]
    """Their numbers among all contexts."""
    ids: Tensor
    """Token ids, int64 [b, n]."""
    lengths: list[int] | None
    """Tokens of each context of a packed row, in order; None for padded rows."""
    owners: Tensor
    """For each prediction the context, by its place in ``contexts`` (int64 [m])."""
    rows: Tensor
    columns: Tensor
    """Where each prediction is read (int64 [m])."""
    targets: Tensor
    """The tokens predicted (int64 [m])."""
    counts: list[int]
    """Predictions of each context."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One of the two ways, ``PADDED`` or ``PACKED``."""

    is_too_much: Callable[[int, int, int, int], bool]
    """Of the longest context of a batch, its contexts and tokens with one more, and the budget in tokens."""
    lay: Callable[[list[Context]], tuple[Tensor, list[int] | None, Tensor]]
    """Ids of the contexts, their lengths where they are packed, and the place of each one's first token (row, column:
    int64 [contexts, 2]).
    """

    def groups(self, contexts: Sequence[Context], budget: int) -> list[list[int]]:
        """Numbers of contexts with positions, longest first, within the budget (longer ones alone)."""
        order = sorted((i for i, c in enumerate(contexts) if len(c.positions)), key=lambda i: (-contexts[i].needed, i))
        groups: list[list[int]] = []
        tokens = 0
        for index in order:
            needed = contexts[index].needed
            last = groups[-1] if groups else []
            if not last or self.is_too_much(contexts[last[0]].needed, len(last) + 1, tokens + needed, budget):
                groups.append([index])
                tokens = needed
            else:
                last.append(index)
                tokens += needed
        return groups

    def batch(self, contexts: Sequence[Context], numbers: list[int]) -> Batch:
        """A group of contexts as a batch."""
        chosen = [contexts[number] for number in numbers]
        ids, lengths, starts = self.lay(chosen)
        owners = torch.cat([torch.full((len(c.positions),), place, dtype=torch.long) for place, c in enumerate(chosen)])
        places = torch.cat([torch.as_tensor(c.positions, dtype=torch.long) for c in chosen])
        return Batch(
            contexts=numbers,
            ids=ids,
            lengths=lengths,
            owners=owners,
            rows=starts[owners, 0],
            columns=starts[owners, 1] + places - 1,
            targets=torch.cat([torch.as_tensor([c.ids[p] for p in c.positions], dtype=torch.long) for c in chosen]),
            counts=[len(context.positions) for context in chosen],
        )


def _padded(contexts: list[Context]) -> tuple[Tensor, list[int] | None, Tensor]:
    ids = torch.zeros((len(contexts), max(context.needed for context in contexts)), dtype=torch.long)
    for row, context in enumerate(contexts):
        ids[row, : context.needed] = torch.as_tensor(context.ids[: context.needed], dtype=torch.long)
    return ids, None, torch.tensor([[row, 0] for row in range(len(contexts))])


def _packed(contexts: list[Context]) -> tuple[Tensor, list[int] | None, Tensor]:
    lengths = [context.needed for context in contexts]
    ids = torch.cat([torch.as_tensor(c.ids[: c.needed], dtype=torch.long) for c in contexts])
    return ids[None], lengths, torch.tensor([[0, end] for end in accumulate(lengths[:-1], initial=0)])


PADDED = Layout(lambda longest, contexts, tokens, budget: longest * contexts > budget, _padded)
PACKED = Layout(lambda longest, contexts, tokens, budget: tokens > budget, _packed)
