"""Entropies by the Triton kernel (``models.entropy_kernel``), where it is there and gives the right ones.

It stands in for a plain linear output layer, whatever scale or soft cap follows it. Its answers for a model are
compared with a softmax over logits in fp32 before they are believed. Ours.
"""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from models.heads import Head, HeadScores, LinearHead, Trunk, entropy_and_nll, probe_ids
from storage.errors import PolicyError

Kernel = Literal["torch", "triton"]
SAME = 2e-3
"""Nats by which the kernel's answers may be off those of logits in fp32: sums of as many products in another order, of
weights of any type. Ours.
"""
_COLUMNS = 8192
_HINT = "Set build.numeric.kernel: torch."


def by_kernel(model: Any, trunk: Trunk, head: Head) -> HeadScores:
    """A model's head by the kernel.

    Raises ``PolicyError`` where the kernel can't run or can't stand in for this head, and where it gives other numbers.
    """
    weight = next(model.parameters())
    reason = why_no_kernel(weight.device, weight.dtype)
    if reason is None and not (isinstance(head, LinearHead) and type(head.output) is nn.Linear):
        reason = f"the output of the model type {model.config.get_text_config().model_type} is no plain linear layer"
    if reason is not None:
        raise PolicyError(f"the kernel triton can't be used: {reason}.", hint=_HINT)
    assert isinstance(head, LinearHead)
    ids = probe_ids(32, len(head.output.weight), weight.device)
    with torch.inference_mode():
        apart = _apart(head, trunk(ids[None])[0], ids)
    if apart > SAME:
        raise PolicyError(
            f"the kernel triton gives this policy other entropies than logits in fp32: by up to {apart:.2g} nats,"
            f" allowed are {SAME:g}.",
            hint=_HINT,
        )
    return _scores(head)


def _scores(head: LinearHead) -> HeadScores:
    from models.entropy_kernel import hidden_entropy_and_nll

    def scores(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return hidden_entropy_and_nll(
            hidden, head.output.weight, targets, bias=head.output.bias, factor=head.factor, cap=head.cap
        )

    return scores


def _apart(head: LinearHead, hidden: Tensor, targets: Tensor) -> float:
    """The largest difference (nats) between the kernel's answers and those of logits in fp32; infinite where only one
    of them is no number.
    """
    found = torch.stack(_scores(head)(hidden, targets))
    weight, bias = head.output.weight, head.output.bias
    # A part at a time: the whole head in fp32 may be more than is left of the GPU's memory.
    parts = [linear(hidden.float(), part.float()) for part in weight.split(_COLUMNS)]
    logits = torch.cat(parts, dim=-1)
    wide = LinearHead(nn.Identity(), head.factor, head.cap)
    expected = torch.stack(entropy_and_nll(wide(logits if bias is None else logits + bias.float()), targets))
    apart = torch.where(found.isnan() & expected.isnan() | (found == expected), 0.0, (found - expected).abs())
    return float(apart.nan_to_num(nan=torch.inf).max())


def why_no_kernel(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernel can't be used on a device; None where it can."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    from triton import knobs

    if device.type != "cuda" and not knobs.runtime.interpret:
        return f"it needs a GPU, the policy is on a {device.type}"
    return _why_broken(device, dtype)


@cache
def _why_broken(device: torch.device, dtype: torch.dtype) -> str | None:
    from triton.errors import TritonError

    from models.entropy_kernel import DTYPES

    if dtype not in DTYPES:
        return f"it knows no weights of {dtype}"
    draw = torch.Generator().manual_seed(0)
    weight, hidden = torch.randn(1100, 200, generator=draw), torch.randn(5, 200, generator=draw)
    head = LinearHead(SimpleNamespace(weight=weight.to(device, dtype), bias=None), cap=20.0)
    try:
        with torch.inference_mode():
            apart = _apart(head, hidden.to(device, dtype), torch.arange(5, device=device) * 250)
    except (TritonError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        return f"it does not run here ({' '.join(str(error).split())[:200]})"
    return None if apart <= SAME else f"its entropies are off by up to {apart:.2g} nats here"


def kernel_by_itself(device: torch.device, dtype: torch.dtype) -> Kernel:
    """The kernel that a device has without being asked for one: Triton's on a GPU in 16 bits, where it runs and
    is right.

    In float32 its products are not those of tensor cores, and a matrix product of torch is the faster one. Inferred.
    """
    chosen = device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)
    return "triton" if chosen and why_no_kernel(device, dtype) is None else "torch"
