"""Contexts end to end in one row, without padding: every token that is computed is one that is read.

Each context's positions begin at 0, and that is where it begins. A flash-attention backend takes the borders as they
are (cumulative lengths); the others make a mask of them, tokens x tokens for a row, which is right but no gain. Flash
attention 2 is used on a GPU with 16-bit weights where its package is installed, else the model's own attention.

Not every family can be packed: a state-space layer runs on from one context into the next, and some models know no
positions. So a model's packed numbers are compared with those of single contexts, taken before its attention is
changed, and packing that gives others is an error. Ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from models.heads import Head, Trunk, entropy_and_nll, probe_ids, split_model
from storage.errors import PolicyError

FAMILIES = frozenset({"gpt_neox", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3"})
"""Model types that are packed without being asked: each has the same numbers packed, which the tests compare."""
LONGEST_PROBE = 4096
"""A window of attention up to so many tokens is gone beyond when packing is tried. Ours."""
SAME, SAME_IN_16_BITS, SAME_ON_AVERAGE = 1e-3, 0.25, 0.05
"""Nats by which entropies may differ packed and alone: of float32, of 16 bits, and of 16 bits on average. Ours: those
of the audit's second scoring (``tasks.audit.rescoring``); what leaks in from a neighbour is ten times as much.
"""
_SIXTEEN = (torch.bfloat16, torch.float16)
_LAST = 16
_HINT = "Set build.numeric.packing: off."


def packed_places(lengths: list[int], device: torch.device, *, borders: bool) -> dict[str, Any]:
    """What a trunk is told of a packed row: positions [1, n], and for flash attention the ``borders`` of contexts."""
    told: dict[str, Any] = {"position_ids": torch.cat([torch.arange(n) for n in lengths])[None].to(device)}
    if borders:
        ends = torch.tensor([*accumulate(lengths, initial=0)], dtype=torch.int32).to(device)
        told |= {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends}
        told |= {"max_length_q": max(lengths), "max_length_k": max(lengths)}
    return told


def pack(model: Any, trunk: Trunk, head: Head) -> bool:
    """Makes a model ready for packed rows; whether it now has flash attention.

    Raises ``PolicyError`` where packed contexts do not get the numbers that each gets alone.
    """
    weight = next(model.parameters())
    probe = _probe(model, weight.device)
    lengths = [len(ids) for ids in probe]
    with torch.inference_mode():
        alone = [trunk(ids[None])[0] for ids in probe]
        flash = _flash(model) if why_no_flash(weight.device, weight.dtype) is None else False
        try:
            row = trunk(torch.cat(probe)[None], **packed_places(lengths, weight.device, borders=flash))[0]
        except TypeError as error:
            raise PolicyError(f"{_family(model)} can't be packed: {error}.", hint=_HINT) from error
        found, expected = _entropies(head, torch.split(row, lengths), probe), _entropies(head, alone, probe)
    apart = torch.where(found.isnan() & expected.isnan(), 0.0, (found - expected).abs()).nan_to_num(nan=torch.inf)
    largest, mean = float(apart.max()), float(apart.mean())
    allowed = SAME_IN_16_BITS if weight.dtype in _SIXTEEN else SAME
    if largest > allowed or mean > SAME_ON_AVERAGE:
        raise PolicyError(
            f"{_family(model)} can't be packed: entropies of a probe change by up to {largest:.2g} nats"
            f" ({mean:.2g} on average), allowed are {allowed:g} ({SAME_ON_AVERAGE:g}).",
            hint=_HINT,
        )
    return flash


def _probe(model: Any, device: torch.device) -> list[Tensor]:
    """Three contexts, the middle one longer than the model's window of attention where that is short."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None) or 0
    longest = min(LONGEST_PROBE, getattr(config, "max_position_embeddings", None) or LONGEST_PROBE)
    lengths = (5, window + 9 if 24 < window + 9 <= longest else 24, 13)
    return [probe_ids(n, config.vocab_size, device, first) for first, n in zip((1, 31, 71), lengths, strict=True)]


def _entropies(head: Head, hidden: Sequence[Tensor], ids: Sequence[Tensor]) -> Tensor:
    """Of the last tokens of each context."""
    ends = zip(hidden, ids, strict=True)
    return torch.cat([entropy_and_nll(head(states[-_LAST:]), tokens[-_LAST:])[0] for states, tokens in ends])


def _family(model: Any) -> str:
    return f"the model type {model.config.get_text_config().model_type}"


def _flash(model: Any) -> bool:
    """Gives a model flash attention; false for one that knows none."""
    try:
        model.set_attn_implementation("flash_attention_2")
    except (ImportError, ValueError):
        return False
    return str(model.config.get_text_config()._attn_implementation) == "flash_attention_2"


def why_no_flash(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why flash attention can't be used here; None where it can."""
    from transformers.utils.import_utils import is_flash_attn_2_available

    if device.type != "cuda":
        return f"there is none on a {device.type}"
    if dtype not in _SIXTEEN:
        return f"there is none for {dtype}"
    return None if is_flash_attn_2_available() else "the package flash_attn is not installed"


@cache
def packs_by_itself(device: torch.device, dtype: torch.dtype, family: str) -> bool:
    """Whether a model type is packed on a device without being asked: flash attention is there and gives a small random
    model the right numbers.
    """
    return family in FAMILIES and why_no_flash(device, dtype) is None and _flash_works(device, dtype)


def _flash_works(device: torch.device, dtype: torch.dtype) -> bool:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2}
    with torch.random.fork_rng(devices=[device]), torch.device(device):
        torch.manual_seed(0)
        model: Any = LlamaForCausalLM(LlamaConfig(num_attention_heads=2, max_position_embeddings=128, **sizes))
    model = model.to(dtype).eval()
    try:
        return pack(model, *split_model(model, device))
    except (PolicyError, RuntimeError, ImportError):
        return False
