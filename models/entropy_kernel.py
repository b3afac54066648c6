"""Entropy and negative log-likelihood straight from hidden states: a Triton kernel that writes no logit to memory.

    x_v = cap · tanh(factor · (hidden · weight_v + bias_v) / cap)       bias, factor and cap where the model has them
    m = max x,  Z = Σ e^(x−m),  S = Σ e^(x−m) (x−m)
    H = ln Z − S / Z,  nll = ln Z + m − x_target                        nats

A program takes a block of rows and a range of the vocabulary, a tile of columns after the other: products accumulate in
fp32, and when a tile raises m, what was summed before is scaled by e^d with d = m_old − m_new ≤ 0:

    S ← (S + d Z) e^d,  Z ← Z e^d

(the online softmax of Milakov and Gimelshein 2018; the first moment beside the sum is ours). Each range leaves m, Z, S
and the target's logit behind, and the same rule joins the ranges. Tiles and ranges do not depend on the number of rows
or on the device, so a row's numbers depend on nothing that stands beside it.

Rules and results are those of ``models.heads.entropy_and_nll``: -infinity counts as probability zero, NaN and
+infinity come out as NaN. One thing differs: in bfloat16 and float16 a linear layer rounds its logits to that type
before they are widened for the softmax, and the kernel does not, so it is the nearer one to fp32.

Importing this module imports Triton: CUDA builds of torch bring it along, CPU builds do not. It runs on a GPU, and on a
CPU in Triton's interpreter (``TRITON_INTERPRET=1`` before Triton is first imported), which is for tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import torch
import triton
import triton.language as tl
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# The interpreter puts itself in the place of Triton's functions, for all threads. A GPU has one thread that launches.
_one_at_a_time = Lock()


@dataclass(frozen=True, slots=True)
class Tiles:
    """Rows and vocabulary columns of a tile, elements of the hidden size multiplied at once (powers of two, each at
    least 16), columns of one program's range; warps and pipeline stages of the compiled kernel.
    """

    rows: int
    columns: int
    depth: int
    split: int = 1024
    warps: int = 8
    stages: int = 3


def tiles_of(dtype: torch.dtype) -> Tiles:
    """The tiles of a type: what fits 100 KB of shared memory, the least of the GPUs with bfloat16. Ours."""
    return Tiles(64, 64, 32, warps=4) if dtype == torch.float32 else Tiles(128, 128, 64)


def hidden_entropy_and_nll(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    factor: float = 1.0,
    cap: float | None = None,
    tiles: Tiles | None = None,
) -> tuple[Tensor, Tensor]:
    """Entropy and negative log-likelihood (float32 [n], nats) of the logits of hidden states.

    ``hidden`` [n, h] and ``weight`` [v, h] are of one type (float32, bfloat16 or float16), ``bias`` [v] of any,
    ``targets`` [n] of integers: a target outside the vocabulary gives NaN as its likelihood. Memory beyond the results:
    16 bytes a row and range of ``tiles.split`` columns.

    Raises ``ValueError`` for shapes or types that do not go together, and for a weight whose rows are not in one piece.
    """
    _check(hidden, weight, targets, bias)
    tiles = tiles or tiles_of(weight.dtype)
    rows, vocabulary, width = len(hidden), *weight.shape
    if rows == 0:
        return hidden.new_empty(0, dtype=torch.float32), hidden.new_empty(0, dtype=torch.float32)
    hidden, targets = hidden.contiguous(), targets.contiguous()
    splits = -(-vocabulary // tiles.split)
    parts = torch.empty((4, splits, rows), dtype=torch.float32, device=hidden.device)
    with _one_at_a_time, torch.cuda.device_of(hidden):  # type: ignore[no-untyped-call]
        ranges[(-(-rows // tiles.rows), splits)](
            hidden,
            weight,
            weight if bias is None else bias.contiguous(),
            targets,
            parts,
            rows,
            vocabulary,
            width,
            weight.stride(0),
            splits,
            float(factor),
            1.0 if cap is None else float(cap),
            HAS_BIAS=bias is not None,
            HAS_FACTOR=factor != 1.0,
            HAS_CAP=cap is not None,
            # numpy, which the interpreter computes with, has no bfloat16; a product of two is exact in fp32.
            WIDEN=hidden.device.type == "cpu",
            ROWS=tiles.rows,
            COLUMNS=tiles.columns,
            DEPTH=tiles.depth,
            SPLIT=tiles.split,
            num_warps=tiles.warps,
            num_stages=tiles.stages,
        )
    entropy, nll = _joined(*parts)
    return entropy, nll.masked_fill((targets < 0) | (targets >= vocabulary), torch.nan)


def _check(hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None) -> None:
    shapes = f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)}, targets {tuple(targets.shape)}"
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1] or 0 in weight.shape:
        raise ValueError(f"{shapes} do not go together")
    if targets.shape != hidden.shape[:1] or (bias is not None and bias.shape != weight.shape[:1]):
        raise ValueError(f"{shapes} do not go together")
    if hidden.dtype != weight.dtype or weight.dtype not in DTYPES:
        raise ValueError(f"hidden states of {hidden.dtype} and weights of {weight.dtype}")
    if weight.stride(1) != 1:
        raise ValueError("a weight whose rows are not in one piece")


def _joined(peak: Tensor, total: Tensor, moment: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """One answer of the ranges' m, Z, S and target logits (float32 [ranges, n] each)."""
    highest = peak.amax(dim=0)
    lower = torch.where(peak == -torch.inf, 0.0, peak - highest)
    scale = lower.exp()
    mass = (total * scale).sum(dim=0)
    expected = ((moment + lower * total) * scale).sum(dim=0) / mass
    # Only one range has the target; -infinity there is the target's own logit.
    return mass.log() - expected, mass.log() + (highest - wanted.sum(dim=0))


@triton.jit(do_not_specialize=["rows"])  # type: ignore[untyped-decorator]
def ranges(  # type: ignore[no-untyped-def]
    hidden,
    weight,
    bias,
    targets,
    parts,
    rows,
    vocabulary,
    width,
    weight_stride,
    splits,
    factor,
    cap,
    HAS_BIAS: tl.constexpr,
    HAS_FACTOR: tl.constexpr,
    HAS_CAP: tl.constexpr,
    WIDEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """m, Z, S and the target's logit of a block of rows over a range of the vocabulary, into ``parts`` [4, splits,
    rows].
    """
    # Neighbouring programs share a range, so that its weights come from the cache for all blocks of rows but the first.
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(1)
    inside = row < rows
    target = tl.load(targets + row, mask=inside, other=-1)
    hidden_row = hidden + row.to(tl.int64)[:, None] * width
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    moment = tl.zeros((ROWS,), tl.float32)
    wanted = tl.zeros((ROWS,), tl.float32)
    first = split * SPLIT
    for start in range(first, tl.minimum(first + SPLIT, vocabulary), COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        known = column < vocabulary
        weight_row = weight + column.to(tl.int64)[None, :] * weight_stride
        x = tl.zeros((ROWS, COLUMNS), tl.float32)
        for begin in range(0, width, DEPTH):
            place = begin + tl.arange(0, DEPTH)
            there = place < width
            left = tl.load(hidden_row + place[None, :], mask=inside[:, None] & there[None, :], other=0.0)
            right = tl.load(weight_row + place[:, None], mask=there[:, None] & known[None, :], other=0.0)
            if WIDEN:
                left = left.to(tl.float32)
                right = right.to(tl.float32)
            x = tl.dot(left, right, x, input_precision="ieee")
        if HAS_BIAS:
            x += tl.load(bias + column, mask=known, other=0.0).to(tl.float32)[None, :]
        if HAS_FACTOR:
            x *= factor
        if HAS_CAP:
            x /= cap
            shrunk = tl.exp(-2.0 * tl.abs(x))
            x = tl.where(x < 0, -cap, cap) * ((1.0 - shrunk) / (1.0 + shrunk))
        x = tl.where(known[None, :], x, float("-inf"))
        wanted += tl.sum(tl.where(column[None, :] == target[:, None], x, 0.0), axis=1)

        higher = tl.maximum(peak, tl.max(x, axis=1))
        # Nothing but -infinity so far: any finite number may stand in for the largest.
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        lower = tl.where(peak == float("-inf"), 0.0, peak - shift)
        scale = tl.exp(lower)
        x -= shift[:, None]
        share = tl.exp(x)
        x = tl.where(share == 0.0, 0.0, x)
        moment = (moment + lower * total) * scale + tl.sum(share * x, axis=1)
        total = total * scale + tl.sum(share, axis=1)
        peak = higher
    out = parts + split * rows + row
    layer = splits * rows
    tl.store(out, peak, mask=inside)
    tl.store(out + layer, total, mask=inside)
    tl.store(out + 2 * layer, moment, mask=inside)
    tl.store(out + 3 * layer, wanted, mask=inside)
