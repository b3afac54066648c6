"""Next-token cross-entropy in blocks: the logits of a long sample are never in memory at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

Part = Callable[[Tensor], Tensor]


def next_token_loss(trunk: Part, head: Part, ids: Tensor, *, block: int) -> Tensor:
    """Mean cross-entropy (nats a token, float32 scalar) of every token given all tokens before it in its row.

    ``ids`` is int64 [rows, length]; ``trunk`` gives hidden states [rows, length, h], ``head`` logits [n, vocabulary] of
    [n, h]. Where there are more than ``block`` predictions the head's logits are computed ``block`` at a time and again
    in the backward pass, so memory holds 8 x vocabulary x block bytes of them and not of the whole sample.
    """
    hidden = trunk(ids)[:, :-1].flatten(0, 1)
    targets = ids[:, 1:].flatten()
    if len(targets) <= block:
        return _summed(head, hidden, targets) / len(targets)
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    for start in range(0, len(targets), block):
        part = slice(start, start + block)
        total = total + checkpoint(_summed, head, hidden[part], targets[part], use_reentrant=False)
    return total / len(targets)


def _summed(head: Part, hidden: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(head(hidden).float(), targets, reduction="sum")
