"""Extending the context: what moves, what stays, and which models can't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from models.extension import ExtensionConfig, extend
from models.policy import load_config, load_model
from storage.errors import ConfigError
from tests.tiny_policies import tiny_policy


def _frequencies(folder: Path, config: Any) -> torch.Tensor:
    model: Any = load_model(folder, config, torch.float32, False)
    frequencies: torch.Tensor = model.model.rotary_emb.inv_freq
    return frequencies


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_the_slowest_frequency_is_stretched_by_the_factor_and_the_fastest_stays(tmp_path: Path, family: str) -> None:
    folder = tiny_policy(tmp_path / family, family)
    config = load_config(folder)
    extended = extend(config, ExtensionConfig(context=256))
    before, after = _frequencies(folder, config), _frequencies(folder, extended)
    assert before[0] / after[0] == pytest.approx(1.0)
    assert before[-1] / after[-1] == pytest.approx(4.0, rel=1e-5)
    assert (extended.max_position_embeddings, config.max_position_embeddings) == (256, 64)


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_a_given_base_is_taken_as_it_is(tmp_path: Path, family: str) -> None:
    folder = tiny_policy(tmp_path / family, family)
    extended = extend(load_config(folder), ExtensionConfig(context=256, rope_theta=2e8))
    expected = [2e8 ** (-2 * place / 8) for place in range(4)]
    assert _frequencies(folder, extended).tolist() == pytest.approx(expected)


def test_extending_twice_is_extending_once(tmp_path: Path) -> None:
    config = load_config(tiny_policy(tmp_path / "policy"))
    for extension in (ExtensionConfig(context=256), ExtensionConfig(context=256, rope_theta=1e6)):
        once = extend(config, extension)
        assert extend(once, extension).to_dict() == once.to_dict()


def test_a_longer_native_context_stays(tmp_path: Path) -> None:
    config = load_config(tiny_policy(tmp_path / "policy"))
    assert extend(config, ExtensionConfig(context=32)).to_dict() == config.to_dict()


def test_a_model_with_learned_positions_is_refused_only_where_they_end(tmp_path: Path) -> None:
    config = load_config(tiny_policy(tmp_path / "policy", "gpt2"))
    assert extend(config, ExtensionConfig(context=64)).n_positions == 64
    with pytest.raises(ConfigError, match="gpt2 model has no rotary positions: its context of 64 tokens"):
        extend(config, ExtensionConfig(context=128))


def test_a_base_under_another_rule_is_not_moved() -> None:
    rope = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 64}
    config = LlamaConfig(max_position_embeddings=256, rope_parameters=rope)
    with pytest.raises(ConfigError, match="'yarn' scaling already"):
        extend(config, ExtensionConfig(context=1024))
