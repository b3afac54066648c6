"""The scoring engine on a large GPU beside that GPU's own rate of matrix products; only where there is a GPU."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from models.kernel_head import kernel_by_itself
from models.packed import packs_by_itself
from models.scoring import Context, Scorer
from tasks.benchmarks.measurement import Measurement, Target
from tasks.benchmarks.timing import in_turns


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a model and of the work it gets."""

    hidden: int = 2048
    layers: int = 36
    heads: int = 16
    key_heads: int = 2
    intermediate: int = 11008
    vocabulary: int = 151_936
    context: int = 2048
    contexts: int = 32
    positions: int = 64
    tokens_per_batch: int = 16_384
    product: int = 8192

    def flops(self) -> float:
        """Floating-point operations of scoring all contexts: 2 per weight and token, the attention's products over
        half of the context on average, the head on the scored positions alone.
        """
        head = self.hidden // self.heads
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.key_heads * head
        weights = self.layers * (attention + 3 * self.hidden * self.intermediate)
        tokens = self.contexts * self.context
        products = self.layers * 2 * 2 * tokens * (self.context / 2) * self.hidden
        scored = self.contexts * self.positions * 2 * self.hidden * self.vocabulary
        return float(2 * weights * tokens + products + scored)


QWEN_3B = Shape()
"""Qwen2.5-3B: hidden 2,048, 36 layers, 16 heads, 2 key heads, intermediate 11,008, vocabulary 151,936, tied."""


def gpu(shape: Shape, repeats: int, device: str = "cuda") -> Measurement:
    """Share of the measured rate of matrix products that scoring reaches: random weights, bf16."""
    model = random_model(shape, device)
    where = next(model.parameters()).device
    packing = packs_by_itself(where, torch.bfloat16, model.config.model_type)
    kernel = kernel_by_itself(where, torch.bfloat16)
    scorer = Scorer(model, tokens_per_batch=shape.tokens_per_batch, packing=packing, kernel=kernel)
    draw = random.Random(0)
    spread = max(1, shape.context // shape.positions)
    contexts = [
        Context([draw.randrange(shape.vocabulary) for _ in range(shape.context + 1)], range(shape.context, 0, -spread))
        for _ in range(shape.contexts)
    ]
    matrix = torch.randn(shape.product, shape.product, device=device, dtype=torch.bfloat16)
    times = in_turns(
        {
            "ours": _finished(device, lambda: scorer.score(contexts)),
            "product": _finished(device, lambda: [matrix @ matrix for _ in range(8)]),
        },
        repeats=repeats,
    )
    rate = 8 * 2 * float(shape.product) ** 3
    ours, product = times.figure("ours", amount=shape.flops() / 1e12), times.figure("product", amount=rate / 1e12)
    return Measurement(
        name="scoring on a GPU beside its rate of matrix products",
        unit="TFLOP/s",
        ours=ours.model_copy(update={"label": "scoring, Qwen2.5-3B's shape, random weights, bf16"}),
        alternatives=(product.model_copy(update={"label": f"bf16 product of {shape.product} x {shape.product}"}),),
        ratio=ours.value / product.value,
        ratio_of="ours over the measured product",
        target=Target(sense="at least", value=0.55),
        conditions={
            "contexts": shape.contexts,
            "tokens a context": shape.context,
            "entropies a context": shape.positions,
            "tokens a batch": shape.tokens_per_batch,
            "contexts laid out": "packed, flash attention" if packing else "padded",
            "entropies by": "the Triton kernel" if kernel == "triton" else "logits",
            "tokens/s": round(shape.contexts * shape.context / times.figure("ours").value),
        },
    )


def random_model(shape: Shape, device: str) -> Any:
    """A Qwen2 model of this shape with random bf16 weights, in eval mode."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        max_position_embeddings=max(32_768, shape.context),
        tie_word_embeddings=True,
    )
    with torch.device(device):
        model: Any = Qwen2ForCausalLM(config)
    return model.to(torch.bfloat16).eval()


def _finished(device: str, work: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        result = work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return result

    return run
