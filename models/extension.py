"""Extends a model's context: a longer position range and, with rotary positions, a larger base.

Any family of transformers that keeps its rotary settings in ``rope_parameters`` can be extended (Llama, Qwen2, Mistral,
Gemma, …); a model with a table of learned positions (GPT-2) can't: the rows behind its end do not exist.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedConfig

from models.policy import native_context
from storage.errors import ConfigError

# Their frequencies follow from the base alone, or from the base and a band that the base does not move.
_EXTENDABLE = ("default", "linear", "llama3")
_LIMIT_NAMES = ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len", "max_sequence_length")


class ExtensionConfig(BaseModel):
    """How far the context reaches after training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    context: int = Field(
        131_072, ge=2, description="Context after training, tokens; a longer native one stays. [paper 4]"
    )
    rope_theta: float | None = Field(
        None,
        gt=1,
        description="RoPE base from now on; the paper's scripts say 2e8 for Llama-3-8B from 8K to 128K. Null: the"
        " present base, times the extension's factor to the power d/(d-2), d = rotary dimensions of a head (the"
        " NTK-aware rule). [ours 4]",
    )


def extend(config: PreTrainedConfig, extension: ExtensionConfig) -> PreTrainedConfig:
    """A copy of a model's configuration that reaches ``extension.context`` tokens.

    A configuration that reaches as far already keeps its base unless another one is given, so extending twice is
    extending once. Raises ``ConfigError`` for a model without rotary positions that would have to reach further, and
    for rotary settings that were scaled by a rule tied to the old length (yarn, longrope, dynamic).
    """
    extended = copy.deepcopy(config)
    text = extended.get_text_config()
    native = native_context(config)
    factor = extension.context / native
    if factor <= 1 and extension.rope_theta is None:
        return extended
    settings = list(_rope_settings(text))
    if not settings:
        raise ConfigError(
            f"a {text.model_type} model has no rotary positions: its context of {native} tokens can't be extended to"
            f" {extension.context}.",
            hint=f"Set the target length to at most {native}, or start from another model.",
        )
    for rope in settings:
        kind = str(rope.get("rope_type", "default"))
        if kind not in _EXTENDABLE:
            raise ConfigError(
                f"the context of this {text.model_type} model was extended by {kind!r} scaling already;"
                " its base can't be moved.",
                hint="Start from the checkpoint before that extension.",
            )
        rope["rope_theta"] = extension.rope_theta or _ntk_base(rope, text, factor)
    if factor > 1:
        for name in _LIMIT_NAMES:
            if isinstance(getattr(text, name, None), int):
                setattr(text, name, extension.context)
    return extended


def _rope_settings(text: Any) -> Iterator[dict[str, Any]]:
    """The rotary settings that matter for far tokens: the only ones, or those of the layers without a window."""
    parameters = getattr(text, "rope_parameters", None)
    if not isinstance(parameters, dict) or not parameters:
        return
    if "rope_theta" in parameters or "rope_type" in parameters:
        yield parameters
        return
    for layer, rope in parameters.items():
        if isinstance(rope, dict) and "sliding" not in layer:
            yield rope


def _ntk_base(rope: dict[str, Any], text: Any, factor: float) -> float:
    """The base that stretches the slowest frequency by ``factor`` and leaves the fastest alone."""
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    rotary = int(head * (rope.get("partial_rotary_factor") or getattr(text, "partial_rotary_factor", None) or 1.0))
    theta = float(rope.get("rope_theta", 10_000.0))
    return theta * math.pow(factor, rotary / (rotary - 2))
