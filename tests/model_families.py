"""A tiny random model of each family of causal language models, made in a few milliseconds, by its model type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCABULARY = 97
CONTEXT = 128
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
}
SHARED_KEYS = {**SIZES, "num_key_value_heads": 2}
WIDE_HEADS = {**SHARED_KEYS, "head_dim": 8}
ENDS = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
OF_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
OF_BLOOM = {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}
OF_GEMMA2 = {"sliding_window": 16, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 8}
OF_MAMBA = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}

FAMILIES: dict[str, Callable[[], Any]] = {
    "bloom": lambda: BloomForCausalLM(BloomConfig(**OF_BLOOM)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**WIDE_HEADS, **OF_GEMMA2)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**OF_GPT2, **ENDS)),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**WIDE_HEADS)),
    "mamba": lambda: MambaForCausalLM(MambaConfig(**OF_MAMBA)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**WIDE_HEADS, sliding_window=16)),
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**SHARED_KEYS, num_local_experts=4)),
    "olmo2": lambda: Olmo2ForCausalLM(Olmo2Config(**SHARED_KEYS)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**SIZES, **ENDS)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHARED_KEYS)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**WIDE_HEADS)),
}


def random_model(family: str) -> Any:
    """In eval mode and float32, with weights large enough to be uncertain unevenly and to tell tokens apart."""
    torch.manual_seed(7)
    model = FAMILIES[family]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    return model.eval()


def hidden_of(model: Any) -> Callable[[Tensor], Tensor]:
    """What turns ids [b, n] into the model's last hidden states [b, n, h]."""

    def run(ids: Tensor) -> Tensor:
        hidden: Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return hidden

    return run
