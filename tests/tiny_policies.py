"""Tiny random causal language models with tiny tokenizers of their own, made in a few milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from models.policy import quiet_transformers

TEXT = "def shift(values, by): return [value + by for value in values]\n\nThe function moves every value by a step. "
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}


def tiny_tokenizer(vocabulary: int = 300) -> PreTrainedTokenizerFast:
    """A byte-level BPE of ``vocabulary`` entries without a beginning-of-text token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def tiny_policy(folder: Path, family: str = "qwen2", *, seed: int = 0, **changes: Any) -> Path:
    """Saves a policy of a few thousand parameters (context 64, vocabulary 320) into ``folder`` and returns it."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {**SIZES, "vocab_size": 320, **changes}
    if family == "qwen2":
        model: Any = Qwen2ForCausalLM(Qwen2Config(**sizes))
    elif family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    elif family == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=320, n_positions=64, n_embd=16, n_layer=2, n_head=2))
    else:
        raise ValueError(f"no tiny model of family {family!r}")
    with quiet_transformers():
        model.save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    return folder
