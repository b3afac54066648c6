"""Entropy of a policy's predictions at chosen positions, at the cost of the model's trunk and little more.

One forward pass per context serves all its positions; a context is read only up to the token before its last needed
position; the vocabulary head runs on the needed positions alone, in blocks, with the softmax in fp32, so the logits of
a whole sequence are never in memory. Contexts are batched by a token budget, longest first, right-padded: a causal
model's valid positions do not see the padding behind them, so no mask is needed. A GPU may lay them end to end instead
(``models.packed``) and take entropies without logits (``models.kernel_head``). What the last layer does behind its keys
and values is done for the needed positions alone. On a CPU linear layers are oneDNN's (``models.onednn``), and as many
batches run at once as there are threads, each by one of them, so that their number changes no bit of an entropy.

    H_t = -sum_v p(v | x_<t) ln p(v | x_<t)      full vocabulary, nats (PolicyLong, section 2 of docs/method.md)

H_t belongs to the prediction *of* token t and is read from the logits at t - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.batches import PACKED, PADDED, Batch, Context
from models.heads import by_logits, entropy_and_nll, probe_ids, split_model
from models.kernel_head import Kernel, by_kernel
from models.last_layer import LastLayer
from models.onednn import LinearLayers
from models.packed import pack, packed_places
from models.workers import Workers
from storage.errors import PolicyError

__all__ = ["Context", "Scorer", "Scores", "entropy_and_nll", "learned_positions", "may_run_beside_itself"]

_NARROWED_BELOW = 2
"""The last layer is run on the needed tokens alone when a batch has more than so many times as many. Ours."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Entropy and negative log-likelihood (float32 [positions], nats) of a context's positions, in the order asked."""

    entropy: Tensor
    nll: Tensor


class Scorer:
    """Scores contexts with one causal language model of any family.

    ``tokens_per_batch`` bounds the tokens of a batch, padding included; ``head_block`` the positions whose logits are
    in memory at once, and ``workers`` the batches that a CPU works on at once (None: torch's number of threads).
    ``packing`` lays contexts end to end instead of padding them (``models.packed``), ``kernel`` "triton" computes
    entropies without logits (``models.kernel_head``); both are compared with the plain way before they are believed.
    The model must be in eval mode. Raises ``PolicyError`` when a logit is NaN or +infinity, naming the context, and
    where packing or kernel do not give this model's numbers.
    """

    def __init__(
        self,
        model: Any,
        *,
        tokens_per_batch: int = 8192,
        head_block: int = 2048,
        workers: int | None = None,
        packing: bool = False,
        kernel: Kernel = "torch",
    ) -> None:
        self._tokens = tokens_per_batch
        self._block = head_block
        self._device = next(model.parameters()).device
        self._trunk, head = split_model(model, self._device)
        self._flash = pack(model, self._trunk, head) if packing else False
        self._layout = PACKED if packing else PADDED
        self._scores = by_logits(head) if kernel == "torch" else by_kernel(model, self._trunk, head)
        self._last = LastLayer(model, self._trunk)
        self._linear = LinearLayers(model, lambda: head(self._trunk(_probe(model))), tokens=tokens_per_batch)
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
        groups = self._layout.groups(contexts, self._tokens)
        scored = self._workers.each(lambda group: self._score_batch(self._layout.batch(contexts, group)), groups)
        for group, scores in zip(groups, scored, strict=True):
            for index, score in zip(group, scores, strict=True):
                results[index] = score
            self.tokens_read += sum(contexts[i].needed for i in group)
            self.passes += len(group)
            if progress is not None:
                progress(sum(contexts[i].needed for i in group))
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
    def _score_batch(self, batch: Batch) -> list[Scores]:
        at = batch.rows.to(self._device), batch.columns.to(self._device)
        more = {} if batch.lengths is None else packed_places(batch.lengths, self._device, borders=self._flash)
        narrow = len(batch.rows) * _NARROWED_BELOW < batch.ids.numel()
        entropies, losses = [], []
        with self._linear.taken_over():
            with self._last.only(*at) if narrow else nullcontext():
                wanted = self._trunk(batch.ids.to(self._device), **more)[at]
            for start in range(0, len(wanted), self._block):
                block = slice(start, start + self._block)
                entropy, nll = self._scores(wanted[block], batch.targets[block].to(self._device))
                entropies.append(entropy.cpu())
                losses.append(nll.cpu())
        entropy, nll = torch.cat(entropies), torch.cat(losses)
        if not bool(torch.isfinite(entropy).all()):
            where = int(batch.owners[int((~torch.isfinite(entropy)).nonzero()[0])])
            raise PolicyError(
                f"the policy gives NaN or infinite logits (context {batch.contexts[where]} of its shard).",
                hint="Check the checkpoint: policylong doctor --policy PATH, or screen with dtype float32.",
            )
        parts = zip(torch.split(entropy, batch.counts), torch.split(nll, batch.counts), strict=True)
        return [Scores(e, n) for e, n in parts]


def _probe(model: Any) -> Tensor:
    return probe_ids(16, model.config.get_text_config().vocab_size, next(model.parameters()).device)[None]


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
