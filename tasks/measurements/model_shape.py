"""The sizes of a causal language model that its cost depends on, from its configuration alone.

Only matrices are counted: norms and biases are some thousandths of a model and cost next to nothing. [ours]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storage.errors import ConfigError

_NAMES = {
    "hidden": ("hidden_size", "n_embd"),
    "layers": ("num_hidden_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_head"),
    "inner": ("intermediate_size", "n_inner", "ffn_dim"),
}
# Families whose layer has two matrices after attention; all others multiply a gate in and have three.
_WITHOUT_GATE = frozenset("bloom codegen gpt2 gpt_bigcode gpt_neox gptj nemotron opt persimmon phi starcoder2".split())
_LEARNED_POSITIONS = {"gpt2": "n_positions", "gpt_bigcode": "n_positions"}
# What a mixture of experts calls its number of experts: only some of its weights work for a token.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a model; weights are counted in numbers, not bytes."""

    layers: int
    width: int
    """Attention heads x their size: the length of a layer's queries."""
    body: int
    """Weights of the layers' matrices."""
    head: int
    """Weights of the output matrix: vocabulary x hidden size."""
    embeddings: int
    """Weights that are only looked up: tokens (unless the head is the same matrix) and learned positions."""

    @property
    def parameters(self) -> int:
        """All matrices; a tied head counts once."""
        return self.body + self.head + self.embeddings


def model_shape(config: Mapping[str, Any]) -> ModelShape:
    """The shape of a model from its configuration (config.json as a dict, best ``PretrainedConfig.to_dict()``, which
    has the family's defaults).

    Raises ``ConfigError`` naming the field that is missing, and for a mixture of experts, whose cost does not follow
    from its size.
    """
    text: Mapping[str, Any] = config.get("text_config") or config
    family = str(text.get("model_type", "unknown"))
    for name in _EXPERTS:
        if isinstance(text.get(name), int) and text[name] > 1:
            raise ConfigError(
                f"a {family} model has {text[name]} experts ({name}): what it computes for a token does not follow from"
                " its size.",
                hint="Its cost is not reported; everything else works.",
            )
    if family == "falcon":
        raise ConfigError("the cost of a falcon model is not known here.", hint="Everything else works.")
    hidden, layers, heads = (_size(text, family, name) for name in ("hidden", "layers", "heads"))
    inner = 4 * hidden if _found(text, "inner") is None and family in _WITHOUT_GATE else _size(text, family, "inner")
    head_size = int(text.get("head_dim") or hidden // heads)
    keys = int(text.get("num_key_value_heads") or heads) * head_size
    if family == "gpt_bigcode" and text.get("multi_query", True):
        keys = head_size
    width = heads * head_size
    attention = hidden * width + 2 * hidden * keys + width * hidden
    feed_forward = (2 if family in _WITHOUT_GATE else 3) * hidden * inner
    vocabulary = text.get("vocab_size")
    if not isinstance(vocabulary, int):
        raise _missing(family, "vocab_size")
    matrix = vocabulary * hidden
    tied = bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", True)))
    positions = int(text.get(_LEARNED_POSITIONS.get(family, ""), 0)) * hidden
    return ModelShape(
        layers=layers,
        width=width,
        body=layers * (attention + feed_forward),
        head=matrix,
        embeddings=positions + (0 if tied else matrix),
    )


def _found(config: Mapping[str, Any], what: str) -> int | None:
    return next((int(config[name]) for name in _NAMES[what] if isinstance(config.get(name), int)), None)


def _size(config: Mapping[str, Any], family: str, what: str) -> int:
    found = _found(config, what)
    if found is None:
        raise _missing(family, _NAMES[what][0])
    return found


def _missing(family: str, name: str) -> ConfigError:
    return ConfigError(
        f"the configuration of this {family} model has no {name}, so its cost is not known.",
        hint="Its cost is not reported; everything else works.",
    )
