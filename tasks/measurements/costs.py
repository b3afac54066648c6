"""What screening costs, counted from a round's tables alone, beside what training on it costs.

A forward pass over n tokens, of which the vocabulary head predicts m:

    FLOPs = 2 * body * n  +  2 * head * m  +  4 * layers * width * n (n + 1) / 2

``body`` are the weights of the layers' matrices, ``head`` those of the output matrix, ``width`` = heads x their size; a
multiplication and an addition count as two. The last term is attention over the causal pairs of query and key. Training
counts three forward passes with every token predicted: 6 * (body + head) * tokens and three times the attention.
[ours, docs/method.md 6]

Left out: norms, rotations, softmax and its entropy, activations, biases (each linear in n, and together small beside
the matrices of a model with a thousand or more hidden units), padding inside a batch, the embedder and the search. A
kernel that computes the masked half of attention too does up to twice the last term; sliding windows would lower it.
What is counted agrees with torch's own counter of the same model's matrix products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from tasks.measurements.model_shape import ModelShape

Frame = pl.DataFrame | pl.LazyFrame


@dataclass(frozen=True, slots=True)
class Work:
    """Forward passes, the tokens they read, the pairs of query and key among them, and the predictions of the head."""

    passes: int = 0
    tokens: int = 0
    pairs: int = 0
    predictions: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.passes + other.passes,
            self.tokens + other.tokens,
            self.pairs + other.pairs,
            self.predictions + other.predictions,
        )

    @classmethod
    def of_passes(cls, passes: int, length: int, predictions: int) -> Work:
        """``passes`` passes over ``length`` tokens with ``predictions`` predictions each."""
        return cls(passes, passes * length, passes * (length * (length + 1) // 2), passes * predictions)


def forward_flops(shape: ModelShape, work: Work) -> float:
    """FLOPs of forward passes."""
    matrices = 2.0 * shape.body * work.tokens + 2.0 * shape.head * work.predictions
    return matrices + 4.0 * shape.layers * shape.width * work.pairs


def training_flops(shape: ModelShape, tokens: int, length: int, *, recomputed: bool = False) -> float:
    """FLOPs of training on ``tokens`` tokens in samples of ``length``; ``recomputed`` with activation checkpointing,
    which runs every forward pass a second time.
    """
    once = forward_flops(shape, Work.of_passes(tokens // length, length, length)) if length else 0.0
    return once * (4 if recomputed else 3)


@dataclass(frozen=True, slots=True)
class ScreeningWork:
    """The passes of a round's screening, part by part, and what the method to the letter would have read.

    ``literal`` has one pass per root, and one per position and candidate up to that position.
    """

    entropy: Work
    verification: Work
    placebo: Work
    negatives: Work
    literal: Work

    @property
    def total(self) -> Work:
        """All parts that were run."""
        return self.entropy + self.verification + self.placebo + self.negatives


def screening_work(
    tables: Mapping[str, Frame], chunk_tokens: Frame, *, bos_tokens: int, separator_tokens: int
) -> ScreeningWork:
    """The work behind a round's tables ``screened``, ``positions``, ``verdicts`` and ``negatives`` (those that are
    there); ``candidates`` too where ``passes`` says that verification had a budget.

    ``chunk_tokens`` has columns chunk and tokens (of the policy's tokenizer). Lengths are those of
    ``models.scoring.Context.needed``: up to the token before the last scored one.
    """
    lazy = {name: frame.lazy() for name, frame in tables.items()}
    front = chunk_tokens.lazy().select("chunk", before=pl.col("tokens").cast(pl.Int64) + bos_tokens + separator_tokens)
    nothing = Work()
    entropy = verification = placebo = literal = negatives = nothing
    if "screened" in lazy:
        scored = pl.col("tokens").cast(pl.Int64) - (0 if bos_tokens else 1)
        read = pl.col("tokens").cast(pl.Int64) + bos_tokens - 1
        entropy = _counted(lazy["screened"].select(length=read, predictions=scored).filter(pl.col("predictions") > 0))
    if "verdicts" in lazy:
        verdicts = lazy["verdicts"].select("root", "t", "chunk", placebo=pl.col("placebo_gain").is_not_null())
        verification = _counted(_passes(verdicts, front))
        placebo = _counted(_passes(verdicts.filter("placebo"), front))
        pairs = verdicts
        if "passes" in lazy:  # within a budget some pairs have no verdict; to the letter they would have
            pairs = lazy["candidates"].filter(pl.col("excluded").is_null())
        one_by_one = pairs.join(front, on="chunk").select(length=pl.col("before") + pl.col("t"), predictions=pl.lit(1))
        literal = entropy + _counted(one_by_one)
    if "negatives" in lazy and "positions" in lazy:
        verified = lazy["negatives"].filter(pl.col("max_gain").is_not_null()).select("root", "chunk").unique()
        negatives = _counted(_passes(verified.join(lazy["positions"].select("root", "t"), on="root"), front))
    return ScreeningWork(entropy, verification, placebo, negatives, literal)


def _passes(rows: pl.LazyFrame, front: pl.LazyFrame) -> pl.LazyFrame:
    """One row per (root, chunk) with the length of its pass and its predictions, from rows (root, chunk, t)."""
    pairs = rows.group_by("root", "chunk").agg(last=pl.col("t").max().cast(pl.Int64), predictions=pl.len())
    return pairs.join(front, on="chunk").select("predictions", length=pl.col("before") + pl.col("last"))


def _counted(passes: pl.LazyFrame) -> Work:
    length = pl.col("length").cast(pl.Int64)
    sums = passes.select(
        passes=pl.len(),
        tokens=length.sum(),
        pairs=(length * (length + 1) // 2).sum(),
        predictions=pl.col("predictions").cast(pl.Int64).sum(),
    ).collect(engine="streaming")
    return Work(**{name: int(value or 0) for name, value in sums.row(0, named=True).items()})


def cost_figures(
    work: ScreeningWork, shape: ModelShape, *, training_tokens: int, sample_tokens: int, recomputed: bool = False
) -> dict[str, float]:
    """The figures of a report: passes, tokens and FLOPs of screening, as run and to the letter, beside training's.

    ``training_tokens`` are read once in samples of ``sample_tokens``. Ratios are left out where training is nothing.
    """
    total, literal = work.total, work.literal
    training = training_flops(shape, training_tokens, sample_tokens, recomputed=recomputed)
    figures = {
        "screening_passes": float(total.passes),
        "screening_tokens": float(total.tokens),
        "screening_flops": forward_flops(shape, total),
        "screening_tokens_entropy": float(work.entropy.tokens),
        "screening_tokens_verification": float(work.verification.tokens),
        "screening_tokens_placebo": float(work.placebo.tokens),
        "screening_tokens_negatives": float(work.negatives.tokens),
        "literal_passes": float(literal.passes),
        "literal_tokens": float(literal.tokens),
        "literal_flops": forward_flops(shape, literal),
        "training_flops": training,
    }
    if training:
        figures["screening_flops_per_training_flop"] = figures["screening_flops"] / training
        figures["literal_flops_per_training_flop"] = figures["literal_flops"] / training
    return figures
