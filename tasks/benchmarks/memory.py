"""Peak memory of scoring beyond the model, at a large vocabulary, beside full logits."""

from __future__ import annotations

import random
from typing import Any, Literal

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from models.scoring import Context, Scorer
from tasks.benchmarks.children import in_child, peak_memory
from tasks.benchmarks.literal import FullLogits, same_passes
from tasks.benchmarks.measurement import Figure, Measurement, Target
from tasks.benchmarks.sizes import Size

CONTEXT = 512
EVERY = 16
"""One token in so many has its entropy taken."""
_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}

Way = Literal["ours", "full"]


def memory(size: Size, threads: int) -> Measurement:
    """Peak memory at ``memory_tokens`` in flight; the alternative is measured with fewer, which a machine can hold."""
    ours = in_child(scoring_peak, "ours", size.memory_tokens, size.memory_vocabulary, threads)
    full = in_child(scoring_peak, "full", size.memory_tokens_full, size.memory_vocabulary, threads)
    computed = full * size.memory_tokens / size.memory_tokens_full
    return Measurement(
        name="peak memory of scoring beyond the model",
        unit="GB",
        ours=Figure.of(f"{size.memory_tokens:,} tokens in flight", [ours / 1e9]),
        alternatives=(
            Figure.of(f"full logits, {size.memory_tokens_full:,} tokens in flight", [full / 1e9]),
            Figure.of(
                f"full logits, {size.memory_tokens:,} tokens: computed, the line above in proportion", [computed / 1e9]
            ),
        ),
        ratio=ours / computed,
        ratio_of="ours over full logits (computed)",
        target=Target(sense="at most", value=1 / 20),
        conditions={
            "vocabulary": size.memory_vocabulary,
            "model": f"random, {_SHAPE['num_hidden_layers']} layers of {_SHAPE['hidden_size']}",
            "context, tokens": CONTEXT,
            "entropies": f"one token in {EVERY}",
            "numbers": "float32 on cpu",
            "logits of the tokens in flight alone, GB, computed": round(
                4e-9 * size.memory_tokens * size.memory_vocabulary, 1
            ),
        },
    )


def scoring_peak(way: Way, tokens: int, vocabulary: int, threads: int) -> int:
    """Bytes at most resident while ``tokens`` are scored in one batch, beyond the model and a first small pass."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model: Any = Qwen2ForCausalLM(Qwen2Config(vocab_size=vocabulary, max_position_embeddings=CONTEXT, **_SHAPE))
    model.eval()
    scorer, full = Scorer(model, tokens_per_batch=tokens), FullLogits(model, tokens)
    draw = random.Random(0)
    contexts = [
        Context([draw.randrange(vocabulary) for _ in range(CONTEXT + 1)], range(EVERY, CONTEXT + 1, EVERY))
        for _ in range(max(1, tokens // CONTEXT))
    ]
    first = [Context(contexts[0].ids[:17], [16])]
    scorer.score(first)
    with peak_memory() as peak:
        if way == "ours":
            scorer.score(contexts)
        else:
            full.entropies(same_passes(contexts))
    return peak.bytes
