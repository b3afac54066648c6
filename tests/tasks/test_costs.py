"""Costs: what the tables say was read is what the scorer read; FLOPs are those torch counts; sizes are the models'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from models.scoring import Context, Scorer, Scores
from storage.errors import ConfigError
from storage.home import Home
from storage.tables import read_table
from tasks.measurements.costs import Work, cost_figures, forward_flops, screening_work, training_flops
from tasks.measurements.model_shape import ModelShape, model_shape
from tasks.resources import policy_for, release
from tasks.screening.negative_verification import (
    NegativeVerificationConfig,
    NegativeVerificationInputs,
    verify_negatives,
)
from tests.published_world import publish_world, sharp_world
from tests.tiny_policies import SIZES

BASE: dict[str, Any] = {**SIZES, "vocab_size": 50}
GPT_NEOX = {name: value for name, value in BASE.items() if name != "num_key_value_heads"}
FAMILIES: list[tuple[Any, Any, dict[str, Any]]] = [
    (Qwen2Config, Qwen2ForCausalLM, BASE),
    (Qwen2Config, Qwen2ForCausalLM, BASE | {"tie_word_embeddings": False}),
    (Qwen3Config, Qwen3ForCausalLM, BASE | {"head_dim": 24}),
    (LlamaConfig, LlamaForCausalLM, BASE | {"tie_word_embeddings": False, "attention_bias": True}),
    (MistralConfig, MistralForCausalLM, BASE),
    (Gemma2Config, Gemma2ForCausalLM, BASE | {"head_dim": 16}),
    (PhiConfig, PhiForCausalLM, BASE),
    (GPTNeoXConfig, GPTNeoXForCausalLM, GPT_NEOX | {"tie_word_embeddings": False}),
    (GPT2Config, GPT2LMHeadModel, {"vocab_size": 50, "n_positions": 64, "n_embd": 16, "n_layer": 3, "n_head": 2}),
]


@pytest.mark.parametrize(("config_type", "model_type", "sizes"), FAMILIES)
def test_a_shape_has_the_models_matrices(config_type: Any, model_type: Any, sizes: dict[str, Any]) -> None:
    config = config_type(**sizes)
    with torch.device("meta"):
        model = model_type(config)
    shape = model_shape(config.to_dict())
    matrices = {id(p): p.numel() for p in model.parameters() if p.dim() > 1}
    assert shape.parameters == sum(matrices.values())
    assert shape.head == model.get_output_embeddings().weight.numel()
    assert shape.layers == config.num_hidden_layers
    outside = ("wte", "wpe", "embed_tokens", "embed_in", "lm_head", "embed_out")
    named = [(name.split(".")[-2], p) for name, p in model.named_parameters() if p.dim() > 1]
    assert shape.body == sum(p.numel() for module, p in named if module not in outside)


@pytest.mark.parametrize(("config_type", "model_type", "sizes"), [FAMILIES[0], FAMILIES[2], FAMILIES[7]])
def test_flops_are_those_torch_counts(config_type: Any, model_type: Any, sizes: dict[str, Any]) -> None:
    config = config_type(**sizes, attn_implementation="eager")
    model, length = model_type(config).eval(), 40
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.zeros((1, length), dtype=torch.long), use_cache=False)
    # Eager attention computes the masked half too, and rotary angles are a matrix product of a few numbers.
    whole = Work(passes=1, tokens=length, pairs=length * length, predictions=length)
    assert forward_flops(model_shape(config.to_dict()), whole) == pytest.approx(counter.get_total_flops(), rel=5e-3)


def test_formulas_by_hand() -> None:
    shape = ModelShape(layers=2, width=8, body=100, head=30, embeddings=0)
    work = Work.of_passes(3, 4, 2)
    assert work == Work(passes=3, tokens=12, pairs=30, predictions=6)
    assert forward_flops(shape, work) == 2 * 100 * 12 + 2 * 30 * 6 + 4 * 2 * 8 * 30
    once = 6 * (100 + 30) * 12 + 3 * 4 * 2 * 8 * 30
    assert training_flops(shape, 12, 4) == once
    assert training_flops(shape, 12, 4, recomputed=True) == once * 4 / 3
    assert training_flops(shape, 0, 0) == 0


@pytest.mark.parametrize("change", [{"hidden_size": None}, {"vocab_size": None}, {"intermediate_size": None}])
def test_a_field_that_is_missing_is_named(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"no {next(iter(change))}"):
        model_shape({**BASE, "model_type": "llama", **change})


def test_a_mixture_of_experts_is_not_guessed() -> None:
    with pytest.raises(ConfigError, match=r"8 experts \(num_local_experts\)"):
        model_shape({**BASE, "model_type": "mixtral", "num_local_experts": 8})


def test_tables_say_what_the_scorer_read(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Context] = []

    class Recording(Scorer):
        def score(self, contexts: Sequence[Context], **options: Any) -> list[Scores]:
            read.extend(contexts)
            return super().score(contexts, **options)

    monkeypatch.setattr("tasks.resources.Scorer", Recording)
    published = publish_world(sharp_world(home, tmp_path, monkeypatch))
    world = published.world
    inputs = NegativeVerificationInputs(
        negatives=published.refs["negatives"][0],
        positions=published.refs["positions"][0],
        roots=published.refs["roots"][0],
        corpus=world.corpus.digest,
        policy=published.policy,
        separator="\n\n",
        negatives_per_positive=1,
    )
    negatives = verify_negatives.run(home, inputs, NegativeVerificationConfig())["negatives"]
    tokenizer = policy_for(published.policy).tokenizer
    release()
    lengths = [len(tokenizer(chunk["text"], add_special_tokens=False)["input_ids"]) for chunk in world.chunks]
    chunk_tokens = pl.DataFrame({"chunk": range(len(lengths)), "tokens": lengths}).cast(pl.Int32)
    separator = len(tokenizer("\n\n", add_special_tokens=False)["input_ids"])
    tables = {
        name: pl.concat([read_table(home.path, ref) for ref in published.refs[name]])
        for name in ("screened", "positions", "verdicts")
    }
    tables["negatives"] = read_table(home.path, negatives)
    work = screening_work(tables, chunk_tokens, bos_tokens=0, separator_tokens=separator)
    assert work.total == Work(
        passes=len(read),
        tokens=sum(context.needed for context in read),
        pairs=sum(context.needed * (context.needed + 1) // 2 for context in read),
        predictions=sum(len(context.positions) for context in read),
    )
    assert min(part.passes for part in (work.entropy, work.verification, work.placebo, work.negatives)) > 0
    lazy = {name: frame.lazy() for name, frame in tables.items()}
    assert screening_work(lazy, chunk_tokens.lazy(), bos_tokens=0, separator_tokens=separator) == work

    one_by_one = [lengths[row["chunk"]] + separator + row["t"] for row in tables["verdicts"].to_dicts()]
    roots = [row["tokens"] - 1 for row in tables["screened"].to_dicts()]
    assert work.literal.passes == len(one_by_one) + len(roots)
    assert work.literal.tokens == sum(one_by_one) + sum(roots)
    assert work.literal.pairs == sum(n * (n + 1) // 2 for n in one_by_one + roots)
    assert work.literal.predictions == len(one_by_one) + sum(roots)

    shape = ModelShape(layers=2, width=8, body=100, head=30, embeddings=0)
    figures = cost_figures(work, shape, training_tokens=256, sample_tokens=128)
    assert figures["screening_passes"] == len(read)
    assert figures["screening_flops_per_training_flop"] == pytest.approx(
        forward_flops(shape, work.total) / training_flops(shape, 256, 128)
    )
    assert figures["literal_flops"] > forward_flops(shape, work.entropy + work.verification)


def test_a_bos_is_read_too_and_predicts_the_first_token() -> None:
    screened = pl.DataFrame({"root": [0, 1], "tokens": [5, 1]}).cast(pl.Int32)
    chunks = pl.DataFrame({"chunk": [0], "tokens": [3]}).cast(pl.Int32)
    plain = screening_work({"screened": screened}, chunks, bos_tokens=0, separator_tokens=1)
    assert plain.total == Work(passes=1, tokens=4, pairs=10, predictions=4)
    begun = screening_work({"screened": screened}, chunks, bos_tokens=1, separator_tokens=1)
    assert begun.total == Work(passes=2, tokens=6, pairs=16, predictions=6)


def test_a_round_without_screening_costs_nothing_to_screen() -> None:
    chunks = pl.DataFrame({"chunk": [0], "tokens": [3]}).cast(pl.Int32)
    work = screening_work({}, chunks, bos_tokens=0, separator_tokens=1)
    assert work.total == work.literal == Work()
    figures = cost_figures(work, ModelShape(1, 1, 1, 1, 0), training_tokens=0, sample_tokens=0)
    assert figures["screening_flops"] == figures["training_flops"] == 0
    assert "screening_flops_per_training_flop" not in figures
