"""A causal language model as trunk and vocabulary head, and entropy and likelihood of what the head says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SOFTMAX_ELEMENTS = 2**24
"""Logits whose softmax is taken at once, about; up to a vocabulary of 8,192 no block of the head has more. Ours."""

Head = Callable[[Tensor], Tensor]
"""Hidden states [m, h] to logits [m, v]."""
HeadScores = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Hidden states [m, h] and target ids [m] to entropy and negative log-likelihood (float32 [m], nats)."""


@dataclass(frozen=True, slots=True)
class Trunk:
    """Ids [b, n] to hidden states [b, n, h] by a module, without a cache; ``more`` is handed to the module."""

    module: Any
    made: str = "last_hidden_state"

    def __call__(self, ids: Tensor, **more: Any) -> Tensor:
        """Hidden states [b, n, h] of ids [b, n]."""
        hidden: Tensor = getattr(self.module(input_ids=ids, use_cache=False, **more), self.made)
        return hidden


@dataclass(frozen=True, slots=True)
class LinearHead:
    """The output layer with what follows it: cap · tanh(factor · output(hidden) / cap)."""

    output: Any
    factor: float = 1.0
    cap: float | None = None

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits [m, v] of hidden states [m, h]."""
        logits: Tensor = self.output(hidden)
        if self.factor != 1.0:
            logits = logits * self.factor
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


def as_they_are(logits: Tensor) -> Tensor:
    """The head of a model that can't be split: its trunk gives logits."""
    return logits


def split_model(model: Any, device: torch.device) -> tuple[Trunk, Head]:
    """The model as trunk and head.

    Families differ in what follows the head (soft caps, scales), so the split is compared with the model's own logits
    on a short input before it is believed. Where it does not agree, the whole model runs and "hidden" are its logits:
    slower, right.
    """
    whole = Trunk(model, "logits")
    base, output = model.base_model, model.get_output_embeddings()
    if base is model or output is None:
        return whole, as_they_are
    config = model.config.get_text_config()
    factor = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    trunk, head = Trunk(base), LinearHead(output, factor, getattr(config, "final_logit_softcapping", None))
    ids = probe_ids(16, config.vocab_size, device)[None]
    with torch.no_grad():
        expected, found = whole(ids).float(), head(trunk(ids)).float()
    tolerance = 1e-4 if next(model.parameters()).dtype == torch.float32 else 5e-2
    same = bool(torch.allclose(expected, found, rtol=tolerance, atol=tolerance, equal_nan=True))
    return (trunk, head) if same else (whole, as_they_are)


def probe_ids(count: int, vocabulary: int, device: torch.device, first: int = 1) -> Tensor:
    """Token ids [count] all over a vocabulary, the same every time."""
    return torch.arange(first, first + count, device=device) * 7919 % vocabulary


def by_logits(head: Head) -> HeadScores:
    """A head's logits, then their softmax: the reference, and the way of every device."""
    return lambda hidden, targets: entropy_and_nll(head(hidden), targets)


def entropy_and_nll(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy and negative log-likelihood (float32 [n], nats) of logits [n, vocabulary] and target ids [n].

    The softmax is in fp32. A logit of -infinity counts as probability zero; NaN and +infinity come out as NaN. On a CPU
    the rows of a large vocabulary are taken in several parts, so that what the softmax needs besides the logits stays
    small. A part has no fewer rows than there are threads: torch would split a row's sum, and its last bits change.
    """
    parts = -(-logits.numel() // SOFTMAX_ELEMENTS)
    if parts > 1 and logits.device.type == "cpu" and len(logits) >= parts * torch.get_num_threads():
        pieces = zip(logits.tensor_split(parts), targets.tensor_split(parts), strict=True)
        entropies, losses = zip(*(_entropy_and_nll(*piece) for piece in pieces), strict=True)
        return torch.cat(entropies), torch.cat(losses)
    return _entropy_and_nll(logits, targets)


def _entropy_and_nll(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    # H = ln Z - (1/Z) sum e^x x over logits x less their largest: no probability is rounded before its logarithm is
    # taken, which costs 1e-4 nats at a vocabulary of 250,000.
    logits = logits.float()
    shifted = logits - logits.amax(dim=-1, keepdim=True)
    losses = -shifted.gather(-1, targets[:, None]).squeeze(-1)
    weights = shifted.exp()
    total = weights.sum(dim=-1)
    expected = weights.mul_(shifted.masked_fill_(weights == 0, 0.0)).sum(dim=-1) / total
    return total.log() - expected, total.log() + losses
