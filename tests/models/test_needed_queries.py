"""Attention for the needed queries alone gives them what the whole attention would."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from models.last_layer import LastLayer
from models.needed_queries import Needed, NeededQueries
from tests.model_families import FAMILIES, hidden_of, random_model

OTHERWISE = {"bloom", "gemma2", "mamba"}
"""Families whose attention is not torch's: biases and caps of their own, and none at all."""


def tokens_of(counts: list[int], tokens: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    rows = torch.cat([torch.full((n,), row) for row, n in enumerate(counts)])
    places = [torch.randperm(tokens, generator=draw)[:n] for n in counts]
    return rows, torch.cat(places)


@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any),
    tokens=st.integers(11, 24),
    kind=st.sampled_from(["causal", "all", "bool", "float", "bool for all"]),
    groups=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_the_needed_queries_find_what_they_find_among_all(
    counts: list[int], tokens: int, kind: str, groups: int, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    query = torch.randn(len(counts), 4, tokens, 8, generator=draw)
    key, value = (torch.randn(len(counts), 4 // groups, tokens, 8, generator=draw) for _ in range(2))
    seen = torch.rand(len(counts), 1, tokens, tokens, generator=draw) < 0.5
    seen |= torch.eye(tokens, dtype=torch.bool)
    masks = {"bool": seen, "float": torch.where(seen, 0.5, -torch.inf), "bool for all": seen[0, 0]}
    given_mask: dict[str, Any] = {"attn_mask": masks.get(kind), "is_causal": kind == "causal", "enable_gqa": groups > 1}
    rows, places = tokens_of(counts, tokens, draw)
    whole = scaled_dot_product_attention(query, key, value, **given_mask)

    needed = Needed()
    needed.at, needed.in_last_layer, needed.fill = (rows, places), True, float("nan")
    with NeededQueries(needed):
        found = scaled_dot_product_attention(query, key, value, **given_mask)
    assert needed.narrowed_queries == (max(counts) * 2 < tokens)
    torch.testing.assert_close(found[rows, :, places], whole[rows, :, places], atol=1e-5, rtol=1e-5)
    if needed.narrowed_queries:
        others = torch.ones(len(counts), tokens, dtype=torch.bool)
        others[rows, places] = False
        assert found.transpose(1, 2)[others].isnan().all(), "only the needed ones were computed"


def test_attention_before_the_last_layer_and_of_other_shapes_is_left_alone() -> None:
    query = torch.randn(2, 4, 12, 8)
    whole = scaled_dot_product_attention(query, query, query, is_causal=True)
    needed = Needed()
    needed.at, needed.fill = (torch.tensor([0, 1]), torch.tensor([3, 7])), float("nan")
    with NeededQueries(needed):
        assert torch.equal(scaled_dot_product_attention(query, query, query, is_causal=True), whole)
        needed.in_last_layer = True
        one = query[:1]
        assert torch.equal(scaled_dot_product_attention(one, one, one, is_causal=True), whole[:1]), (
            "these are not the contexts that the tokens are of"
        )
    assert not needed.narrowed_queries


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_that_attends_by_torch_is_narrowed(family: str) -> None:
    model = random_model(family)
    run = hidden_of(model)
    layer = LastLayer(model, run)
    assert layer.queries == (family not in OTHERWISE)
    ids = torch.randint(97, (3, 40), generator=torch.Generator().manual_seed(1))
    rows, places = torch.tensor([0, 0, 1, 2]), torch.tensor([4, 39, 0, 21])
    with torch.no_grad():
        whole = run(ids)
        with layer.only(rows, places):
            narrow = run(ids)
    torch.testing.assert_close(narrow[rows, places], whole[rows, places], atol=5e-5, rtol=1e-4)
