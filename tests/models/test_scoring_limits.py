"""The scoring engine where models and inputs end: a right answer or one clear error, never a wrong entropy."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from models.scoring import Context, Scorer, entropy_and_nll
from storage.errors import PolicyError


def small(vocabulary: int) -> Any:
    torch.manual_seed(5)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=128,
            tie_word_embeddings=True,
        )
    )
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(40.0)  # uncertain unevenly
    return model.eval()


class Fixed(torch.nn.Module):
    """A model without a head of its own that answers with given logits after one token, and evenly after others."""

    def __init__(self, token: int, logits: list[float]) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.token, self.logits = token, torch.tensor(logits)
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace())

    @property
    def base_model(self) -> Fixed:
        return self

    def get_output_embeddings(self) -> None:
        return None

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Any:
        even = torch.zeros((*input_ids.shape, len(self.logits)))
        return SimpleNamespace(logits=torch.where((input_ids == self.token)[..., None], self.logits, even))


@torch.no_grad()
def literal(model: Any, ids: list[int], position: int) -> tuple[float, float]:
    """Entropy and nll from the whole context's logits, in float64."""
    log_p = torch.log_softmax(model(torch.tensor([ids])).logits[0, position - 1].double(), dim=-1)
    return float(-(log_p.exp() * log_p).sum()), float(-log_p[ids[position]])


@pytest.mark.parametrize("vocabulary", [256, 250_000])
def test_small_and_large_vocabularies(vocabulary: int) -> None:
    model = small(vocabulary)
    near = 2e-5
    draw = torch.Generator().manual_seed(1)
    contexts = []
    for length in (3, 17, 40):
        ids = torch.randint(vocabulary, (length,), generator=draw).tolist()
        ids[-1] = vocabulary - 1  # the last row of the head
        contexts.append(Context(ids, [1, length - 1]))
    for context, scores in zip(contexts, Scorer(model, head_block=3).score(contexts), strict=True):
        for place, position in enumerate(context.positions):
            entropy, nll = literal(model, list(context.ids), position)
            assert scores.entropy[place] == pytest.approx(entropy, abs=near)
            assert scores.nll[place] == pytest.approx(nll, abs=near)
            assert 0 < float(scores.entropy[place]) < math.log(vocabulary)


@pytest.mark.parametrize("vocabulary", [256, 250_000])
def test_the_largest_and_the_smallest_entropy(vocabulary: int) -> None:
    logits = torch.zeros(2, vocabulary)
    logits[1, 7] = 200.0
    entropy, nll = entropy_and_nll(logits, torch.tensor([vocabulary - 1, 7]))
    assert entropy.tolist() == pytest.approx([math.log(vocabulary), 0.0], abs=2e-5)
    assert nll.tolist() == pytest.approx([math.log(vocabulary), 0.0], abs=2e-5)


@pytest.mark.parametrize(
    "bad", [[math.nan, 0.0, 0.0], [math.inf, 0.0, 0.0], [-math.inf] * 3], ids=["nan", "inf", "none"]
)
def test_a_bad_logit_is_an_error_that_names_its_context(bad: list[float]) -> None:
    scorer = Scorer(Fixed(2, bad), tokens_per_batch=6)
    good = [Context([0, 1, 0, 1], [1, 2, 3]), Context([1, 0, 1], [2])]
    for scores in scorer.score(good):
        assert scores.entropy.tolist() == pytest.approx([math.log(3)] * len(scores.entropy))
    with pytest.raises(PolicyError, match=r"NaN or infinite logits \(context 2 of its shard\)"):
        scorer.score([*good, Context([1, 2, 0], [1, 2])])
    unread = scorer.score([*good, Context([1, 0, 2], [1, 2])])  # the bad prediction is of a token that nobody asked for
    assert all(torch.isfinite(scores.entropy).all() for scores in unread)


def test_a_token_that_can_not_come_leaves_the_entropy_right() -> None:
    scorer = Scorer(Fixed(2, [0.0, 0.0, -math.inf]))
    scores = scorer.score([Context([1, 2, 0], [2]), Context([1, 2, 2], [2])])
    assert [float(s.entropy) for s in scores] == pytest.approx([math.log(2)] * 2)
    assert [float(s.nll) for s in scores] == [pytest.approx(math.log(2)), math.inf]


def test_of_a_document_of_a_million_tokens_only_what_is_needed_is_read() -> None:
    model = small(256)
    ids = torch.arange(1_000_000).remainder(251).tolist()
    scorer = Scorer(model)
    long, short = scorer.score([Context(ids, [1, 60]), Context(ids[:61], [1, 60])])
    assert torch.equal(long.entropy, short.entropy)
    assert scorer.tokens_read == 120


def test_a_context_longer_than_a_model_can_read_is_one_error() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=32)).eval()
    scorer = Scorer(model)
    ids = [n % 50 for n in range(100)]
    assert len(scorer.score([Context(ids, [32])])[0].entropy) == 1
    with pytest.raises(PolicyError, match="context 0 of its shard needs 33 tokens, the model has 32 positions"):
        scorer.score([Context(ids, [33])])


@pytest.mark.parametrize("position", [0, -1, 5])
def test_a_position_without_a_prediction_is_refused(position: int) -> None:
    with pytest.raises(ValueError, match=f"position {position} .* 5 tokens"):
        Scorer(small(256)).score([Context([1, 2, 3, 4, 5], [2, position])])


def test_nothing_to_score() -> None:
    scorer = Scorer(small(256))
    assert scorer.score([]) == []
    (nothing,) = scorer.score([Context([], [])])
    assert nothing.entropy.shape == (0,)
    assert (scorer.passes, scorer.tokens_read) == (0, 0)


def test_ten_thousand_candidates_of_one_root() -> None:
    model = small(256)
    root = [3, 1, 4, 1, 5]
    contexts = [Context([number % 256, number // 256, *root], [3, 6]) for number in range(10_000)]
    told = 0

    def progress(tokens: int) -> None:
        nonlocal told
        told += tokens

    scores = Scorer(model, tokens_per_batch=4096).score(contexts, progress=progress)
    assert len(scores) == 10_000
    assert told == 60_000
    for number in (0, 1, 255, 256, 5_000, 9_999):
        for place, position in enumerate((3, 6)):
            entropy, _ = literal(model, list(contexts[number].ids), position)
            assert scores[number].entropy[place] == pytest.approx(entropy, abs=1e-4)
