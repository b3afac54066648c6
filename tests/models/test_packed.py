"""Packed contexts have the numbers of single ones, in every family that is packed; the others are refused."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaForCausalLM
from transformers import modeling_flash_attention_utils as flash_utils

from models import packed
from models.batches import PACKED, PADDED, Context
from models.packed import FAMILIES, packed_places, packs_by_itself, why_no_flash
from models.scoring import Scorer
from storage.errors import PolicyError
from tests.model_families import random_model

PACKED_FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "olmo2", "phi3", "gpt_neox", "gemma2", "gpt2")


def some_contexts(seed: int = 3) -> list[Context]:
    draw = torch.Generator().manual_seed(seed)
    contexts = []
    for length in (2, 40, 9, 33, 64, 17, 23):
        ids = torch.randint(97, (length,), generator=draw).tolist()
        contexts.append(Context(ids, sorted({1, length // 2 or 1, length - 1})))
    return contexts


def apart(scorer: Scorer, other: Scorer, contexts: list[Context]) -> float:
    """The largest difference of an entropy or likelihood, nats."""
    pairs = zip(scorer.score(contexts), other.score(contexts), strict=True)
    return max(float((torch.stack([a.entropy, a.nll]) - torch.stack([b.entropy, b.nll])).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_packed_contexts_have_the_numbers_of_single_ones(family: str) -> None:
    model = random_model(family)
    assert model.config.model_type == family
    alone = Scorer(model, tokens_per_batch=1)
    for budget in (70, 1000):
        assert apart(Scorer(model, tokens_per_batch=budget, packing=True), alone, some_contexts()) < 1e-5
    assert set(PACKED_FAMILIES) >= FAMILIES


@pytest.mark.parametrize("family", ["mamba", "bloom"], ids=["a state that runs on", "no positions"])
def test_a_family_that_can_not_be_packed_is_refused(family: str) -> None:
    with pytest.raises(PolicyError, match=f"the model type {family} can't be packed") as caught:
        Scorer(random_model(family), packing=True)
    assert caught.value.hint == "Set build.numeric.packing: off."


@given(
    lengths=st.lists(st.integers(2, 30), min_size=1, max_size=12),
    budget=st.integers(1, 120),
    seed=st.integers(0, 99),
)
def test_every_prediction_is_read_before_its_token_and_nothing_is_padded(
    lengths: list[int], budget: int, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    contexts = []
    for number, length in enumerate(lengths):
        positions = [p for p in range(1, length) if float(torch.rand(1, generator=draw)) < 0.4]
        contexts.append(Context([1000 * number + place for place in range(length)], positions))
    for layout in (PADDED, PACKED):
        groups = layout.groups(contexts, budget)
        assert sorted(n for group in groups for n in group) == [n for n, c in enumerate(contexts) if c.positions]
        for group in groups:
            batch = layout.batch(contexts, group)
            assert batch.ids.numel() <= budget or len(group) == 1
            wanted = [(number, p) for number in group for p in contexts[number].positions]
            assert [group[owner] for owner in batch.owners.tolist()] == [number for number, _ in wanted]
            assert batch.ids[batch.rows, batch.columns].tolist() == [1000 * number + p - 1 for number, p in wanted]
            assert batch.targets.tolist() == [1000 * number + p for number, p in wanted]
            if layout is PACKED:
                assert batch.lengths == [contexts[number].needed for number in group]
                assert batch.ids.shape == (1, sum(batch.lengths))


class FakeFlash:
    """What transformers calls of flash attention, done by torch's own attention; remembers the borders."""

    def __init__(self) -> None:
        self.borders: list[list[int]] = []

    def dense(self, q: Tensor, k: Tensor, v: Tensor, causal: bool = False, softmax_scale: float = 1.0) -> Tensor:
        assert causal
        shared = q.shape[2] != k.shape[2]
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=softmax_scale, enable_gqa=shared).transpose(
            1, 2
        )

    def varlen(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        causal: bool = False,
        softmax_scale: float = 1.0,
    ) -> Tensor:
        ends = cu_seqlens_q.tolist()
        assert cu_seqlens_q.dtype == torch.int32
        assert torch.equal(cu_seqlens_q, cu_seqlens_k)
        assert int(max_seqlen_q) == int(max_seqlen_k) == int(cu_seqlens_q.diff().max())
        self.borders.append(ends)
        pieces = pairwise(ends)
        return torch.cat(
            [self.dense(*(x[None, a:b] for x in (q, k, v)), causal, softmax_scale)[0] for a, b in pieces]  # type: ignore[arg-type]
        )


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> FakeFlash:
    fake = FakeFlash()
    monkeypatch.setattr(flash_utils, "_loaded_implementation", None)
    for name in ("_flash_fn", "_flash_varlen_fn", "_process_flash_kwargs_fn", "_process_with_kvcache_kwargs_fn"):
        monkeypatch.setattr(flash_utils, name, None)
    monkeypatch.setattr(flash_utils, "_lazy_imports", lambda *_, **__: (fake.dense, fake.varlen, None, None, None))
    monkeypatch.setattr(packed, "why_no_flash", lambda device, dtype: None)
    monkeypatch.setattr(
        LlamaForCausalLM,
        "set_attn_implementation",
        lambda self, name: setattr(self.config, "_attn_implementation_internal", name),
    )
    return fake


def test_flash_attention_is_told_where_contexts_begin(flash: FakeFlash) -> None:
    contexts = some_contexts()
    plain = Scorer(random_model("llama"), tokens_per_batch=1)
    model = random_model("llama")
    scorer = Scorer(model, tokens_per_batch=90, packing=True)
    assert model.config._attn_implementation == "flash_attention_2"
    flash.borders.clear()
    assert apart(scorer, plain, contexts) < 1e-5
    # Of 63, 39, 32, 22, 16, 8 and 1 tokens, longest first, at most 90 a row; once a layer.
    once = [[0, 63], [0, 39, 71], [0, 22, 38, 46, 47]]
    assert sorted(flash.borders) == sorted([*once, *once])


def test_the_borders_are_those_that_transformers_would_find_in_the_positions() -> None:
    told = packed_places([5, 1, 9], torch.device("cpu"), borders=True)
    (queries, keys), (longest, _) = flash_utils.prepare_fa_kwargs_from_position_ids(told["position_ids"])
    assert torch.equal(told["cu_seq_lens_q"], queries)
    assert torch.equal(told["cu_seq_lens_k"], keys)
    assert told["max_length_q"] == int(longest)
    assert list(packed_places([5, 1, 9], torch.device("cpu"), borders=False)) == ["position_ids"]


def test_a_model_without_flash_attention_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "why_no_flash", lambda device, dtype: None)
    model = random_model("llama")
    assert apart(Scorer(model, packing=True), Scorer(random_model("llama")), some_contexts()) < 1e-5
    assert model.config._attn_implementation == "sdpa"


def test_nothing_is_packed_by_itself_on_a_cpu() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert not packs_by_itself(cpu, torch.bfloat16, "llama")
    assert why_no_flash(cpu, torch.bfloat16) == "there is none on a cpu"
    assert why_no_flash(gpu, torch.float32) == "there is none for torch.float32"
    assert why_no_flash(gpu, torch.bfloat16) == "the package flash_attn is not installed"


def test_a_backend_that_mixes_contexts_up_is_refused(flash: FakeFlash, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        flash_utils,
        "_lazy_imports",
        lambda *_, **__: (flash.dense, lambda q, k, v, **given: flash.dense(*(x[None] for x in (q, k, v)), True)[0],
                          None, None, None),
    )  # fmt: skip
    with pytest.raises(PolicyError, match=r"the model type llama can't be packed: entropies of a probe change"):
        Scorer(random_model("llama"), packing=True)


def test_attention_without_a_name_is_not_flash() -> None:
    model = SimpleNamespace(set_attn_implementation=lambda name: None)
    model.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(_attn_implementation="eager"))
    assert not packed._flash(model)
