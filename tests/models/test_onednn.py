"""Linear layers by oneDNN: the same numbers, for any family, and the model stays as it is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import linear

import models.onednn
from models.onednn import LinearLayers, OneDnnLinear, lay_out
from models.scoring import Context, Scorer
from tests.model_families import FAMILIES, hidden_of, random_model

pytestmark = pytest.mark.skipif(not models.onednn.has_onednn(), reason="this torch was built without oneDNN")

IDS = torch.arange(40).view(2, 20) * 31 % 97
CONTEXTS = [Context([(n * 31 + k) % 97 for n in range(20 + k)], list(range(5, 20 + k, 3))) for k in range(6)]
WITHOUT = {"gpt2"}
"""Families whose layers are not torch's linear ones, but for the output."""


def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the inputs that oneDNN is given from here on."""
    seen: list[tuple[int, ...]] = []
    plain = models.onednn.by_onednn

    def noted(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        seen.append(tuple(input.shape))
        return plain(input, weight, bias)

    monkeypatch.setattr(models.onednn, "by_onednn", noted)
    return seen


@given(
    rows=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    inside=st.integers(1, 70),
    outside=st.integers(1, 70),
    bias=st.booleans(),
    turned=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_layer_is_the_product_whatever_its_shape(
    rows: list[int], inside: int, outside: int, bias: bool, turned: bool, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight, added = torch.randn(outside, inside, generator=draw), torch.randn(outside, generator=draw)
    given_rows = torch.randn(*rows, inside, generator=draw)
    if turned:
        given_rows = given_rows.transpose(0, -1).contiguous().transpose(0, -1)
    expected = given_rows.double() @ weight.double().T + (added.double() if bias else 0.0)
    laid_out = {id(weight): lay_out(weight, 8)}
    with torch.inference_mode():
        with OneDnnLinear():
            found = linear(given_rows, weight, added if bias else None)
        with OneDnnLinear(laid_out):
            again = linear(given_rows, weight, bias=added if bias else None)
    for each in (found, again):
        torch.testing.assert_close(each.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_scores_the_same_and_is_left_as_it_was(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(family)
    run = hidden_of(model)
    with torch.no_grad():
        before = run(IDS)
    scorer = Scorer(model, workers=1)
    seen = calls(monkeypatch)
    found = scorer.score(CONTEXTS)
    assert len(seen) > (0 if family in WITHOUT else 4), "layers were oneDNN's"

    seen.clear()
    with torch.no_grad():
        assert torch.equal(run(IDS), before)
    assert not seen, "outside the scoring the model is torch's"
    monkeypatch.setattr(models.onednn, "has_onednn", lambda: False)
    expected = Scorer(model, workers=1).score(CONTEXTS)
    assert not seen
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.entropy, other.entropy, rtol=0, atol=2e-4)
        torch.testing.assert_close(one.nll, other.nll, rtol=1e-4, atol=2e-4)


def test_weights_above_the_limit_are_not_kept_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("llama")
    found = Scorer(model).score(CONTEXTS)
    monkeypatch.setattr(models.onednn, "LAID_OUT_BYTES", 0)
    monkeypatch.setattr(models.onednn, "lay_out", None)
    for one, other in zip(found, Scorer(model).score(CONTEXTS), strict=True):
        torch.testing.assert_close(one.entropy, other.entropy, rtol=0, atol=2e-4)


@pytest.mark.parametrize("how", ["in place", "other memory", "other parameters"])
def test_weights_that_change_are_read_anew(how: str) -> None:
    model = random_model("llama")
    scorer = Scorer(model)
    scorer.score(CONTEXTS)
    with torch.no_grad():
        for layer in (module for module in model.modules() if isinstance(module, nn.Linear)):
            if how == "in place":
                layer.weight.mul_(0.5)
            elif how == "other memory":
                layer.weight.data = layer.weight.data * 0.5
            else:
                layer.weight = nn.Parameter(layer.weight * 0.5)
    for one, other in zip(scorer.score(CONTEXTS), Scorer(model).score(CONTEXTS), strict=True):
        torch.testing.assert_close(one.entropy, other.entropy, rtol=0, atol=2e-4)


def test_a_onednn_that_gives_other_numbers_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = models.onednn.by_onednn
    monkeypatch.setattr(models.onednn, "by_onednn", lambda *given: plain(*given) * 1.01)
    model = random_model("qwen2")
    layers = LinearLayers(model, lambda: hidden_of(model)(IDS), tokens=64)
    assert not layers.by_onednn
    before = hidden_of(model)(IDS)
    with layers.taken_over():
        assert torch.equal(hidden_of(model)(IDS), before)


@pytest.mark.parametrize("kind", ["bfloat16", "nothing to do", "a vector for a weight", "gradients wanted"])
def test_what_is_not_for_it_goes_the_usual_way(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = calls(monkeypatch)
    layer = nn.Linear(8, 4)
    rows = torch.randn(3, 8)
    with torch.set_grad_enabled(kind == "gradients wanted"), OneDnnLinear():
        if kind == "bfloat16":
            assert layer.bfloat16()(rows.bfloat16()).dtype == torch.bfloat16
        elif kind == "nothing to do":
            assert layer(rows[:0]).shape == (0, 4)
        elif kind == "a vector for a weight":
            assert linear(rows, layer.weight[0]).shape == (3,)
        else:
            layer(rows).sum().backward()
            assert layer.weight.grad is not None
    assert not seen
