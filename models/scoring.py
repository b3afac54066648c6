"""Entropy of a policy's predictions at chosen positions, at the cost of the model's trunk and little more.

One forward pass per context serves all its positions; a context is read only up to the token before its last needed
position; the vocabulary head runs on the needed positions alone, in blocks, with the softmax in fp32, so the logits of
a whole sequence are never in memory. Contexts are batched by a token budget, longest first, right-padded: a causal
model's valid positions do not see the padding behind them, so no mask is needed. What the last layer does behind its
keys and values is done for the needed positions alone. On a CPU as many batches run at once as there are threads, each
by one of them, so that their number changes no bit of an entropy.

    H_t = -sum_v p(v | x_<t) ln p(v | x_<t)      full vocabulary, nats (PolicyLong, section 2 of docs/method.md)

H_t belongs to the prediction *of* token t and is read from the logits at t - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.last_layer import LastLayer
from models.workers import Workers
from storage.errors import PolicyError

SOFTMAX_ELEMENTS = 2**24
"""Logits whose softmax is taken at once, about; up to a vocabulary of 8,192 no block of the head has more. Ours."""
_NARROWED_BELOW = 2
"""The last layer is run on the needed tokens alone when a batch has more than so many times as many. Ours."""


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
class Scores:
    """Entropy and negative log-likelihood (float32 [positions], nats) of a context's positions, in the order asked."""

    entropy: Tensor
    nll: Tensor


class Scorer:
    """Scores contexts with one causal language model of any family.

    ``tokens_per_batch`` bounds rows x longest row of a batch; ``head_block`` the positions whose logits are in memory
    at once, and ``workers`` the batches that a CPU works on at once (None: torch's number of threads). The model must
    be in eval mode. Raises ``PolicyError`` when a logit is NaN or +infinity, naming the context.
    """

    def __init__(
        self, model: Any, *, tokens_per_batch: int = 8192, head_block: int = 2048, workers: int | None = None
    ) -> None:
        self._model = model
        self._tokens = tokens_per_batch
        self._block = head_block
        self._device = next(model.parameters()).device
        self._trunk, self._head = split_model(model, self._device)
        self._last = LastLayer(model, self._trunk)
        self._longest = learned_positions(model)
        self._workers = Workers(
            self._device, (workers or torch.get_num_threads()) if may_run_beside_itself(model) else 1
        )
        self.tokens_read = 0
        self.passes = 0

    def score(self, contexts: Sequence[Context], *, progress: Callable[[int], None] | None = None) -> list[Scores]:
        """Scores of each context, in order; contexts without positions give empty tensors. ``progress`` is told
        tokens.

        Raises ``ValueError`` for a position without a prediction: one that is not in its context, or its first token.
        """
        for number, context in enumerate(contexts):
            self._check(number, context)
        results: list[Scores] = [Scores(torch.empty(0), torch.empty(0))] * len(contexts)
        batches = list(_batches(contexts, self._tokens))
        scored = self._workers.each(lambda batch: self._score_batch([contexts[i] for i in batch], batch), batches)
        for batch, scores in zip(batches, scored, strict=True):
            for index, score in zip(batch, scores, strict=True):
                results[index] = score
            self.tokens_read += sum(contexts[i].needed for i in batch)
            self.passes += len(batch)
            if progress is not None:
                progress(sum(contexts[i].needed for i in batch))
        return results

    def _check(self, number: int, context: Context) -> None:
        if not len(context.positions):
            return
        for position in (min(context.positions), max(context.positions)):
            if not 1 <= position < len(context.ids):
                raise ValueError(f"position {position} of a context of {len(context.ids)} tokens has no prediction")
        if self._longest is not None and context.needed > self._longest:
            raise PolicyError(
                f"context {number} of its shard needs {context.needed} tokens, the model has {self._longest}"
                " positions.",
                hint="Lower build.screening_tokens.",
            )

    @torch.inference_mode()
    def _score_batch(self, contexts: list[Context], numbers: list[int]) -> list[Scores]:
        longest = max(context.needed for context in contexts)
        ids = torch.zeros((len(contexts), longest), dtype=torch.long)
        for row, context in enumerate(contexts):
            ids[row, : context.needed] = torch.as_tensor(context.ids[: context.needed], dtype=torch.long)
        rows = torch.cat([torch.full((len(c.positions),), row, dtype=torch.long) for row, c in enumerate(contexts)])
        places = torch.cat([torch.as_tensor(c.positions, dtype=torch.long) for c in contexts])
        targets = torch.cat([torch.as_tensor([c.ids[p] for p in c.positions], dtype=torch.long) for c in contexts])

        at = rows.to(self._device), (places - 1).to(self._device)
        narrow = len(rows) * _NARROWED_BELOW < ids.numel()
        with self._last.only(*at) if narrow else nullcontext():
            wanted = self._trunk(ids.to(self._device))[at]
        entropies, losses = [], []
        for start in range(0, len(rows), self._block):
            block = slice(start, start + self._block)
            entropy, nll = entropy_and_nll(self._head(wanted[block]), targets[block].to(self._device))
            entropies.append(entropy.cpu())
            losses.append(nll.cpu())
        entropy, nll = torch.cat(entropies), torch.cat(losses)
        if not bool(torch.isfinite(entropy).all()):
            where = int(rows[int((~torch.isfinite(entropy)).nonzero()[0])])
            raise PolicyError(
                f"the policy gives NaN or infinite logits (context {numbers[where]} of its shard).",
                hint="Check the checkpoint: policylong doctor --policy PATH, or screen with dtype float32.",
            )
        counts = [len(context.positions) for context in contexts]
        return [Scores(e, n) for e, n in zip(torch.split(entropy, counts), torch.split(nll, counts), strict=True)]


def may_run_beside_itself(model: Any) -> bool:
    """Whether two forward passes of a model may run at once: not where its places depend on the longest context read so
    far (dynamic and longrope keep that in the model), nor where its code is not transformers' own.
    """
    config = getattr(model, "config", None)
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {rope.get("rope_type"), *(kind.get("rope_type") for kind in rope.values() if isinstance(kind, dict))}
    return type(model).__module__.startswith("transformers.") and not kinds & {"dynamic", "longrope"}


def learned_positions(model: Any) -> int | None:
    """How many tokens a model with a vector for each place can read; None for one whose places are computed."""
    config = getattr(model, "config", None)
    if config is None or any(getattr(config, name, None) for name in ("rope_parameters", "rope_theta")):
        return None
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) else None


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


def _batches(contexts: Sequence[Context], budget: int) -> Iterator[list[int]]:
    """Indices of contexts with positions, longest first, rows x longest within the budget (longer ones alone)."""
    order = sorted((i for i, c in enumerate(contexts) if len(c.positions)), key=lambda i: (-contexts[i].needed, i))
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * contexts[batch[0]].needed > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def split_model(model: Any, device: torch.device) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The model as trunk (ids [b, n] -> hidden [b, n, h]) and head (hidden [m, h] -> logits [m, v]).

    Families differ in what follows the head (soft caps, scales), so the split is compared with the model's own logits
    on a short input before it is believed. Where it does not agree, the whole model runs and "hidden" are its logits:
    slower, right.
    """
    base, output = model.base_model, model.get_output_embeddings()

    def whole(ids: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
        return logits

    if base is model or output is None:
        return whole, lambda logits: logits
    config = model.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    factor = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)

    def trunk(ids: Tensor) -> Tensor:
        hidden: Tensor = base(input_ids=ids, use_cache=False).last_hidden_state
        return hidden

    def head(hidden: Tensor) -> Tensor:
        logits: Tensor = output(hidden)
        if factor != 1.0:
            logits = logits * factor
        return logits if cap is None else cap * torch.tanh(logits / cap)

    ids = (torch.arange(1, 17, device=device) * 7919 % config.vocab_size)[None]
    with torch.no_grad():
        expected, found = whole(ids).float(), head(trunk(ids)).float()
    tolerance = 1e-4 if next(model.parameters()).dtype == torch.float32 else 5e-2
    same = bool(torch.allclose(expected, found, rtol=tolerance, atol=tolerance, equal_nan=True))
    return (trunk, head) if same else (whole, lambda logits: logits)
