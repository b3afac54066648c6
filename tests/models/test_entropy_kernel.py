"""The Triton kernel, run by Triton's interpreter, against the definition in float64; and compiled for a GPU."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.entropy_kernel import Tiles, hidden_entropy_and_nll, tiles_of
from models.scoring import entropy_and_nll

SMALL = Tiles(rows=16, columns=32, depth=16, split=64)
# numpy, which the interpreter computes with, says so when it meets an infinity less itself, or nothing but NaN.
pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value encountered"),
    pytest.mark.filterwarnings("ignore:All-NaN slice encountered"),
]


def literal(logits: Tensor, targets: Tensor) -> tuple[list[float], list[float]]:
    """Entropy and nll of float64 logits, number by number."""
    entropies, losses = [], []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        if any(math.isnan(x) or x == math.inf for x in row) or max(row) == -math.inf:
            entropies.append(math.nan)
            losses.append(math.nan)
            continue
        peak = max(row)
        log_z = peak + math.log(math.fsum(math.exp(x - peak) for x in row))
        entropies.append(-math.fsum(math.exp(x - log_z) * (x - log_z) for x in row if x > -math.inf))
        losses.append(log_z - row[target])
    return entropies, losses


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Tensor | float | None]:
    rows, width, vocabulary = draw(st.integers(1, 20)), draw(st.integers(1, 40)), draw(st.integers(1, 130))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    hidden = torch.randn(rows, width, generator=generator) * draw(st.sampled_from([0.0, 0.3, 3.0]))
    weight = torch.randn(vocabulary, width, generator=generator)
    bias = None
    if draw(st.booleans()):
        bias = torch.randn(vocabulary, generator=generator)
        for column in draw(st.lists(st.integers(0, vocabulary - 1), max_size=vocabulary)):
            bias[column] = -math.inf  # a token that can't come
        if draw(st.booleans()):
            bias[draw(st.integers(0, vocabulary - 1))] = draw(st.sampled_from([math.nan, math.inf, 30.0]))
    elif draw(st.booleans()):
        hidden[draw(st.integers(0, rows - 1)), draw(st.integers(0, width - 1))] = math.nan
    return {
        "hidden": hidden.to(dtype),
        "weight": weight.to(dtype),
        "targets": torch.randint(vocabulary, (rows,), generator=generator),
        "bias": bias,
        "factor": draw(st.sampled_from([1.0, 0.0625, 2.0])),
        "cap": draw(st.sampled_from([None, None, 5.0, 30.0])),
    }


def logits_of(hidden: Tensor, weight: Tensor, bias: Tensor | None, factor: float, cap: float | None) -> Tensor:
    x = hidden.double() @ weight.double().T
    x = (x if bias is None else x + bias.double()) * factor
    return x if cap is None else cap * torch.tanh(x / cap)


@given(world=worlds())
@settings(max_examples=30, deadline=None)
def test_the_kernel_is_the_definition(world: dict[str, Tensor | float | None]) -> None:
    found = hidden_entropy_and_nll(**world, tiles=SMALL)  # type: ignore[arg-type]
    targets = world.pop("targets")
    expected = literal(logits_of(**world), targets)  # type: ignore[arg-type]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        assert ours.tolist() == pytest.approx(theirs, abs=5e-5, rel=5e-6, nan_ok=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_tiles_of_a_gpu_give_the_same_and_a_row_depends_on_no_other(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    hidden, weight = torch.randn(70, 48).to(dtype), torch.randn(1100, 48).to(dtype)
    targets = torch.randint(1100, (70,))
    together = torch.stack(hidden_entropy_and_nll(hidden, weight, targets))
    expected = literal(hidden.double() @ weight.double().T, targets)
    torch.testing.assert_close(together, torch.tensor(expected, dtype=torch.float32), atol=5e-5, rtol=5e-6)
    alone = torch.stack(hidden_entropy_and_nll(hidden[41:42], weight, targets[41:42]))
    assert torch.equal(alone[:, 0], together[:, 41])
    assert tiles_of(dtype).split % tiles_of(dtype).columns == 0


def test_on_fp32_it_is_the_torch_path_and_on_bf16_nearer_to_the_truth() -> None:
    torch.manual_seed(2)
    hidden, weight, targets = torch.randn(16, 48), torch.randn(200, 48), torch.randint(200, (16,))
    for ours, theirs in zip(
        hidden_entropy_and_nll(hidden, weight, targets, tiles=SMALL),
        entropy_and_nll(hidden @ weight.T, targets),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)
    short, head = hidden.bfloat16(), weight.bfloat16()
    truth = torch.tensor(literal(short.double() @ head.double().T, targets)[0])
    kernel = hidden_entropy_and_nll(short, head, targets, tiles=SMALL)[0]
    rounded = entropy_and_nll(short @ head.T, targets)[0]
    assert (kernel - truth).abs().max() < 2e-5 < 1e-3 < (rounded - truth).abs().max() < 0.2


def test_weights_in_a_wider_table_and_hidden_states_in_strides_are_read_as_they_lie() -> None:
    torch.manual_seed(3)
    table, hidden, targets = torch.randn(40, 50), torch.randn(6, 48)[::2, ::2], torch.tensor([0, 39, 7])
    weight = table[:, 10:34]
    found = hidden_entropy_and_nll(hidden, weight, targets, tiles=SMALL)
    expected = literal(hidden.double() @ weight.double().T, targets)
    torch.testing.assert_close(torch.stack(found), torch.tensor(expected, dtype=torch.float32), atol=2e-5, rtol=0)


def test_a_target_outside_the_vocabulary_is_no_likelihood() -> None:
    entropy, nll = hidden_entropy_and_nll(
        torch.zeros(3, 16), torch.zeros(20, 16), torch.tensor([-1, 20, 19]), tiles=SMALL
    )
    assert entropy.tolist() == pytest.approx([math.log(20)] * 3, abs=1e-6)
    assert nll.tolist() == pytest.approx([math.nan, math.nan, math.log(20)], abs=1e-6, nan_ok=True)


def test_nothing_to_score_and_shapes_that_do_not_go_together() -> None:
    hidden, weight, none = torch.zeros(0, 8), torch.zeros(5, 8), torch.zeros(0, dtype=torch.long)
    assert [part.shape for part in hidden_entropy_and_nll(hidden, weight, none)] == [(0,), (0,)]
    for wrong in (
        (torch.zeros(2, 7), weight, none),
        (torch.zeros(2, 8), weight, none),
        (hidden.half(), weight, none),
        (hidden.double(), weight.double(), none),
        (hidden, torch.zeros(8, 5).T, none),
    ):
        with pytest.raises(ValueError):
            hidden_entropy_and_nll(*wrong)


def test_it_compiles_to_tensor_core_code_of_a_gpu() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).resolve().parents[2] / "deploy" / "checks" / "kernel.py"
    done = subprocess.run(
        [sys.executable, str(script), "--json", "90:bfloat16"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    (compiled,) = json.loads(done.stdout)
    assert compiled["product"].startswith("wgmma.mma_async")
    assert compiled["shared_bytes"] <= 100 * 1024
