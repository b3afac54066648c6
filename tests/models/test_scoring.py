"""The engine against the literal algorithm: one full forward pass per context, softmax in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.scoring import Context, Scorer, entropy_and_nll, may_run_beside_itself
from models.workers import Workers
from storage.errors import PolicyError
from tests.model_families import VOCABULARY, random_model


@torch.no_grad()
def literal(model: Any, ids: list[int], position: int) -> tuple[float, float]:
    """Entropy and nll of the prediction of ``ids[position]``: the whole context, all logits, float64."""
    logits = model(torch.tensor([ids])).logits[0, position - 1].double()
    p = torch.softmax(logits, dim=-1)
    entropy = -sum(float(x) * math.log(float(x)) for x in p if x > 0)
    return entropy, -math.log(float(p[ids[position]]))


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2", "gemma2"])
def test_scores_are_the_literal_algorithms(family: str) -> None:
    model = random_model(family)
    generator = torch.Generator().manual_seed(3)
    contexts = []
    for length in (2, 9, 33, 64, 17):
        ids = torch.randint(VOCABULARY, (length,), generator=generator).tolist()
        contexts.append(Context(ids, sorted({1, length // 2 or 1, length - 1})))
    scores = Scorer(model, tokens_per_batch=70, head_block=3).score(contexts)
    for context, score in zip(contexts, scores, strict=True):
        for place, position in enumerate(context.positions):
            entropy, nll = literal(model, list(context.ids), position)
            assert score.entropy[place] == pytest.approx(entropy, abs=2e-5)
            assert score.nll[place] == pytest.approx(nll, abs=5e-5)


@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=8),
    budget=st.integers(1, 200),
    block=st.integers(1, 50),
    seed=st.integers(0, 9),
)
@settings(max_examples=25, deadline=None)
def test_batching_changes_nothing(lengths: list[int], budget: int, block: int, seed: int) -> None:
    model = random_model("qwen2")
    generator = torch.Generator().manual_seed(seed)
    contexts = [
        Context(torch.randint(VOCABULARY, (n,), generator=generator).tolist(), list(range(1, n, 1 + seed % 3)))
        for n in lengths
    ]
    alone = [Scorer(model).score([context])[0] for context in contexts]
    together = Scorer(model, tokens_per_batch=budget, head_block=block).score(contexts)
    for one, many in zip(alone, together, strict=True):
        torch.testing.assert_close(one.entropy, many.entropy, atol=2e-5, rtol=0)
        torch.testing.assert_close(one.nll, many.nll, atol=5e-5, rtol=0)


def test_known_distributions() -> None:
    logits = torch.tensor([[0.0] * 4, [0.0, 0.0, -math.inf, -math.inf], [50.0, 0.0, 0.0, 0.0]])
    entropy, nll = entropy_and_nll(logits, torch.tensor([2, 0, 0]))
    assert entropy.tolist() == pytest.approx([math.log(4), math.log(2), 0.0], abs=1e-6)
    assert nll.tolist() == pytest.approx([math.log(4), math.log(2), 0.0], abs=1e-6)


def test_a_context_without_positions_gives_nothing_and_costs_nothing() -> None:
    scorer = Scorer(random_model("qwen2"))
    empty, full = scorer.score([Context([1, 2, 3], []), Context([1, 2, 3], [2])])
    assert len(empty.entropy) == 0
    assert len(full.entropy) == 1
    assert (scorer.passes, scorer.tokens_read) == (1, 2)


def test_nan_weights_are_an_error_not_an_entropy() -> None:
    model = random_model("qwen2")
    scorer = Scorer(model)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = math.nan
    with pytest.raises(PolicyError, match="NaN"):
        scorer.score([Context([1, 2, 3], [1, 2])])


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_the_number_of_batches_at_once_changes_no_bit(family: str) -> None:
    model, before = random_model(family), torch.get_num_threads()
    contexts = [Context([n % VOCABULARY for n in range(k, k + 40)], [5, 20 + k % 19]) for k in range(30)]
    found = [
        torch.cat([scores.entropy for scores in Scorer(model, tokens_per_batch=160, workers=count).score(contexts)])
        for count in (1, 2, 5)
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert torch.get_num_threads() == before


def test_an_error_of_one_batch_leaves_the_others_undone() -> None:
    workers, begun = Workers(torch.device("cpu"), 1), []

    def work(number: int) -> int:
        begun.append(number)
        if number == 2:
            raise PolicyError("the third")
        return number

    with pytest.raises(PolicyError, match="the third"):
        list(workers.each(work, range(100)))
    assert len(begun) <= 3 + 2
    assert list(workers.each(work, [5, 7])) == [5, 7]


def test_a_model_that_remembers_the_longest_context_runs_by_itself() -> None:
    model = random_model("llama")
    assert may_run_beside_itself(model)
    model.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    assert not may_run_beside_itself(model)
    assert not may_run_beside_itself(torch.nn.Linear(1, 1))
