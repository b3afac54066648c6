"""The alternative to the scoring engine: the model as transformers has it, with the logits of whole sequences.

A fair one: fp32 like ours, batched under the same budget of tokens, longest first, contexts as long as ours, the
softmax only where an entropy is wanted. What it does not do is what is measured: it takes one pass per position and
candidate (``one_each``), and every pass makes the logits of all its tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from models.scoring import Context
from models.workers import Workers

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass: the ``length`` first ids are read, the predictions of ``positions`` are wanted."""

    ids: Sequence[int]
    length: int
    positions: tuple[int, ...]


def same_passes(contexts: Sequence[Context]) -> list[Pass]:
    """A pass per context, as long as ours."""
    return [Pass(context.ids, context.needed, tuple(context.positions)) for context in contexts]


def one_each(contexts: Sequence[Context], *, cut: bool) -> list[Pass]:
    """A pass per position of every context: as long as our pass for it, or (``cut``) ending before the position."""
    return [
        Pass(context.ids, position if cut else context.needed, (position,))
        for context in contexts
        for position in context.positions
    ]


class FullLogits:
    """Entropies from the logits of whole sequences; ``everywhere`` takes the softmax at every token as well.

    Batches run one after the other, each on all torch threads, as one runs a model; with ``workers`` as ours do.
    """

    def __init__(self, model: Any, tokens_per_batch: int, workers: Workers | None = None) -> None:
        self._model = model
        self._budget = tokens_per_batch
        self._device = next(model.parameters()).device
        self._workers = workers

    def entropies(self, passes: Sequence[Pass], *, everywhere: bool = False) -> list[list[float]]:
        """Entropy (nats) of each wanted position of each pass, in order."""
        found: list[list[float]] = [[] for _ in passes]
        taken = list(batches(passes, self._budget))
        answers = self._each(lambda numbers: self._entropies(passes, numbers, everywhere), taken)
        for numbers, answer in zip(taken, answers, strict=True):
            for number, values in zip(numbers, answer, strict=True):
                found[number] = values
        return found

    @torch.inference_mode()
    def _entropies(self, passes: Sequence[Pass], numbers: Sequence[int], everywhere: bool) -> list[list[float]]:
        logits = self._model(input_ids=padded(passes, numbers).to(self._device), use_cache=False).logits
        if everywhere:
            whole = entropy(logits)
            return [whole[row, [p - 1 for p in passes[n].positions]].tolist() for row, n in enumerate(numbers)]
        rows = [row for row, number in enumerate(numbers) for _ in passes[number].positions]
        places = [p - 1 for number in numbers for p in passes[number].positions]
        values = iter(entropy(logits[rows, places]).tolist())
        return [[next(values) for _ in passes[number].positions] for number in numbers]

    def trunk(self, passes: Sequence[Pass]) -> None:
        """The forward pass without any logits: what no way of scoring can be faster than."""
        for _ in self._each(lambda numbers: self._trunk(passes, numbers), list(batches(passes, self._budget))):
            pass
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    @torch.inference_mode()
    def _trunk(self, passes: Sequence[Pass], numbers: Sequence[int]) -> None:
        self._model.base_model(input_ids=padded(passes, numbers).to(self._device), use_cache=False)

    def _each(self, work: Callable[[list[int]], Result], items: Sequence[list[int]]) -> Iterator[Result]:
        return map(work, items) if self._workers is None else self._workers.each(work, items)


def entropy(logits: Tensor) -> Tensor:
    """Entropy (nats) over the last dimension, softmax in fp32."""
    log_p = torch.log_softmax(logits.float(), dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1)


def padded(passes: Sequence[Pass], numbers: Sequence[int]) -> Tensor:
    """The ids of these passes, int64 [b, longest], padded at the right, where a causal model does not look."""
    longest = max(passes[number].length for number in numbers)
    ids = torch.zeros((len(numbers), longest), dtype=torch.long)
    for row, number in enumerate(numbers):
        read = passes[number].ids[: passes[number].length]
        ids[row, : len(read)] = torch.as_tensor(read, dtype=torch.long)
    return ids


def batches(passes: Sequence[Pass], budget: int) -> Iterator[list[int]]:
    """Numbers of passes, longest first, rows x longest within the budget."""
    batch: list[int] = []
    for number in sorted(range(len(passes)), key=lambda i: (-passes[i].length, i)):
        if batch and (len(batch) + 1) * passes[batch[0]].length > budget:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
