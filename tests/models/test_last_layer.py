"""The last layer on the needed tokens alone: which modules are narrowed, and that the needed tokens do not notice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.last_layer import LastLayer, last_layer
from models.scoring import Context, Scorer
from tests.model_families import hidden_of, random_model

PLAIN = ("self_attn.q_proj", "self_attn.o_proj", "mlp")
NARROWED = {
    "llama": PLAIN,
    "qwen3": PLAIN,  # queries with a norm
    "mixtral": PLAIN,  # experts
    "phi3": PLAIN[1:],  # one product for queries, keys and values
    "gpt2": ("attn.c_proj", "mlp"),  # the same, transposed
    "gpt_neox": ("attention.dense", "mlp"),  # attention beside the rest
    "bloom": ("self_attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),  # a residual handed in
}


@pytest.mark.parametrize("family", NARROWED)
def test_the_needed_tokens_come_out_as_without(family: str) -> None:
    model = random_model(family)
    run = hidden_of(model)
    layer = LastLayer(model, run)
    assert layer.narrowed == NARROWED[family]
    ids = torch.randint(97, (3, 20), generator=torch.Generator().manual_seed(1))
    rows, places = torch.tensor([0, 0, 1, 2]), torch.tensor([4, 19, 0, 11])
    with torch.no_grad():
        whole = run(ids)
        with layer.only(rows, places):
            narrow = run(ids)
        again = run(ids)
    torch.testing.assert_close(narrow[rows, places], whole[rows, places], atol=2e-5, rtol=1e-5)
    assert not torch.allclose(narrow[0, 7], whole[0, 7]), "nothing was left out"
    assert torch.equal(again, whole)


def test_a_layer_that_mixes_tokens_behind_its_attention_is_run_whole() -> None:
    model = random_model("llama")
    model.model.layers[-1].mlp = _Mixing(model.model.layers[-1].mlp)
    assert LastLayer(model, hidden_of(model)).narrowed == ()


def test_a_last_layer_that_also_stands_before_is_run_whole() -> None:
    model = random_model("llama")
    model.model.layers[0] = model.model.layers[1]
    assert LastLayer(model, hidden_of(model)).narrowed == ()


def test_a_model_without_a_list_of_its_layers_is_left_alone() -> None:
    model = random_model("llama")
    model.config.num_hidden_layers = 3
    assert last_layer(model) is None
    assert LastLayer(model, hidden_of(model)).narrowed == ()


@pytest.mark.parametrize("wanted", [1, 3, 30])
def test_scores_are_the_same_however_many_positions_are_wanted(wanted: int) -> None:
    model = random_model("llama")
    draw = torch.Generator().manual_seed(wanted)
    contexts = [
        Context(
            torch.randint(97, (40,), generator=draw).tolist(),
            sorted((torch.randperm(39, generator=draw)[:wanted] + 1).tolist()),
        )
        for _ in range(6)
    ]
    for context, scores in zip(contexts, Scorer(model, tokens_per_batch=100).score(contexts), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([context.ids])).logits[0].double()
        for place, position in enumerate(context.positions):
            p = torch.softmax(logits[position - 1], dim=-1)
            assert scores.entropy[place] == pytest.approx(-float((p * p.log()).sum()), abs=2e-5)


class _Mixing(nn.Module):
    """A feed-forward part that sees the token before as well."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: Tensor) -> Tensor:
        made: Tensor = self.inner(hidden + hidden.roll(1, dims=1))
        return made.roll(1, dims=1)
