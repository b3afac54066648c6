"""Attention of a model's last layer for the queries of the needed tokens alone, on a CPU.

Keys and values are those of all tokens; what the other queries would find is read by nobody. Families reach torch's
``scaled_dot_product_attention`` each in their own way, so the call itself is taken over while the last layer runs. A
model that does not come by there (eager attention, soft caps) is left as it is. On a GPU flash attention without a mask
is left alone too. Ours; it saves nearly all attention of one layer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

_FEWER_THAN = 2
"""Only where a context's needed tokens are fewer than all tokens over this: a masked part costs up to twice as much as
a causal whole of its size. Ours.
"""


class Needed(threading.local):
    """The tokens that this thread's pass is about: rows (ascending) and places, int64 [m], of a batch [b, n]."""

    at: tuple[Tensor, Tensor] | None = None
    batch: torch.Size = torch.Size()
    """Rows and places of the batch, as the module that is being narrowed was given it."""
    fill: float = 0.0
    """What stands for the tokens that are left out."""
    in_last_layer: bool = False
    narrowed_queries: bool = False
    """Whether an attention was narrowed since this was last set to false."""


class NeededQueries(TorchFunctionMode):
    """While it is on, attention of the last layer answers the queries of the needed tokens; others get ``fill``."""

    def __init__(self, needed: Needed) -> None:
        super().__init__()
        self._needed = needed

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls torch's function, attention of the last layer with fewer queries."""
        if func is scaled_dot_product_attention and self._needed.in_last_layer:
            return self._attend(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **more: Any,
    ) -> Tensor:
        assert self._needed.at is not None
        rows, places = self._needed.at
        each = _queries_each(rows, places, query, key)
        if each is None:
            return scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, **more)
        count, tokens, most = query.shape[0], query.shape[-2], int(each.max())
        slots = torch.arange(len(rows)) - (each.cumsum(0) - each)[rows]
        wanted = query.new_zeros((*query.shape[:2], most, query.shape[-1]))
        wanted[rows, :, slots] = query[rows, :, places]
        mask = _mask_of(attn_mask, is_causal, (count, most, tokens), rows, slots, places)
        found = scaled_dot_product_attention(wanted, key, value, mask, dropout_p, **more)
        whole = found.new_full((*found.shape[:2], tokens, found.shape[-1]), self._needed.fill)
        whole[rows, :, places] = found[rows, :, slots]
        self._needed.narrowed_queries = True
        return whole


def _queries_each(rows: Tensor, places: Tensor, query: Tensor, key: Tensor) -> Tensor | None:
    """Wanted queries of each context (int64 [b]); None where the whole is as good or the tokens do not fit."""
    if query.device.type != "cpu" or query.dim() != 4 or key.shape[-2] != query.shape[-2]:
        return None
    count, tokens = query.shape[0], query.shape[-2]
    each = torch.bincount(rows, minlength=count)
    if len(each) != count or int(places.max()) >= tokens or int(each.max()) * _FEWER_THAN >= tokens:
        return None
    return each


def _mask_of(
    given: Tensor | None,
    is_causal: bool,
    size: tuple[int, int, int],
    rows: Tensor,
    slots: Tensor,
    places: Tensor,
) -> Tensor | None:
    """What each wanted query sees, [b, 1 or heads, most, n]; a slot without a query sees something, never nothing."""
    count, most, tokens = size
    if given is not None:
        whole = given.expand(count, given.shape[-3] if given.dim() > 2 else 1, tokens, tokens)
        seen = whole.new_ones if whole.dtype == torch.bool else whole.new_zeros
        mask = seen((count, whole.shape[1], most, tokens))
        mask[rows, :, slots] = whole[rows, :, places]
        return mask
    if not is_causal:
        return None
    last = places.new_zeros((count, most))
    last[rows, slots] = places
    return (torch.arange(tokens) <= last[..., None])[:, None]
