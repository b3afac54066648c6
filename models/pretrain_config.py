"""The options of the base model's pretraining, and the shape of what it reads.

Everything about the training mixture is counted in tokens since the start, never in shares of the planned length, so
that a run can be prolonged or shortened before its decay begins without having been another run.
"""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator


class PretrainText(Protocol):
    """What pretraining needs of a document; ``tasks.corpus.documents.RawDocument`` has it."""

    @property
    def text(self) -> str:
        """What is read."""

    @property
    def source(self) -> str:
        """Where it comes from; part of the corpus' digest."""

    @property
    def group(self) -> str:
        """What it belongs to; two documents of one group can make a paired row."""


class MixtureConfig(BaseModel):
    """Kinds of training rows and their shares. All ours.

    Plain text alone teaches a small model to ignore what stands far back: after 3.7M tokens of it no candidate in front
    of an unseen root lowered the entropy. The other two kinds make looking back pay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repeat: float = Field(0.35, ge=0, le=1, description="Share of rows in which passages come again later.")
    paired: float = Field(
        0.20,
        ge=0,
        le=1,
        description="Share of rows shaped like a verification: chunks, then a text of the same package.",
    )
    early_repeat: float = Field(
        0.60,
        ge=0,
        le=1,
        description="Share of repeat rows at the start; falls linearly to `repeat` (plain text gives way).",
    )
    early_tokens: int = Field(
        4_000_000, ge=1, description="Tokens over which the early share falls and the distances grow to a whole row."
    )
    passage_min: int = Field(20, ge=2, description="Shortest repeated passage. Tokens.")
    passage_max: int = Field(128, ge=2, description="Longest repeated passage. Tokens.")
    chunk_min: int = Field(60, ge=4, description="Shortest chunk in front of a paired row. Tokens.")
    chunk_max: int = Field(120, ge=4, description="Longest chunk in front of a paired row. Tokens.")
    more_chunks: float = Field(0.3, ge=0, le=1, description="Share of paired rows with two or three chunks, not one.")
    unrelated: float = Field(
        0.15,
        ge=0,
        le=1,
        description="Share of the chunks that come from anywhere: a prefix must not always be believed.",
    )
    shared_run: int = Field(
        16, ge=2, description="A chunk sharing so many tokens in a row with the text behind it is not used: no copies."
    )

    @model_validator(mode="after")
    def _shares_fit(self) -> MixtureConfig:
        if max(self.repeat, self.early_repeat) + self.paired > 1:
            raise ValueError("repeat (or early_repeat) and paired together exceed 1")
        if self.passage_min > self.passage_max or self.chunk_min > self.chunk_max:
            raise ValueError("a smallest length exceeds its largest")
        return self

    def repeat_share(self, tokens: int) -> float:
        """Share of repeat rows after ``tokens`` tokens of training."""
        return self.repeat + (self.early_repeat - self.repeat) * max(0.0, 1 - tokens / self.early_tokens)

    def reach(self, tokens: int) -> float:
        """How far away the second copy may stand after ``tokens`` tokens, as a share of the row: 0.1 rising to 1."""
        return min(1.0, 0.1 + 0.9 * tokens / self.early_tokens)


class PretrainConfig(BaseModel):
    """A small Qwen2 trained from nothing. All ours; the defaults are the recipe of the shipped model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocabulary: int = Field(4_096, ge=300, description="Size of the byte-level BPE vocabulary. Tokens.")
    hidden: int = Field(192, ge=8, description="Width of the residual stream.")
    intermediate: int = Field(512, ge=8, description="Width inside the gated MLP.")
    layers: int = Field(5, ge=1, description="Transformer blocks; two are the least in which induction can form.")
    heads: int = Field(4, ge=1, description="Attention heads, as many for keys and values.")
    context: int = Field(512, ge=16, description="Native context and length of every training row. Tokens.")
    rope_theta: float = Field(10_000.0, gt=0, description="Base of the rotary position embedding.")
    tokenizer_characters: int = Field(
        40_000_000, ge=1, description="Text the tokenizer is trained on: whole documents chosen by hash. Characters."
    )
    mixture: MixtureConfig = Field(default_factory=MixtureConfig, description="Kinds of training rows.")
    optimizer: Literal["muon", "adamw"] = Field(
        "muon", description="Optimizer of the matrices inside the blocks; everything else is AdamW's."
    )
    muon_learning_rate: float = Field(0.02, gt=0, description="Peak rate of Muon.")
    adamw_learning_rate: float = Field(3e-3, gt=0, description="Peak rate of AdamW.")
    weight_decay: float = Field(0.05, ge=0, description="Decoupled, on matrices only.")
    clip: float = Field(1.0, gt=0, description="Largest gradient norm.")
    rows_per_step: int = Field(8, ge=1, description="Rows of `context` tokens in an optimizer step.")
    total_tokens: int = Field(13_000_000, ge=1, description="Length of the training. Tokens.")
    warmup_tokens: int = Field(500_000, ge=0, description="Linear warm-up. Tokens.")
    decay_tokens: int = Field(5_000_000, ge=0, description="Linear decay to zero at the end. Tokens.")
    save_tokens: int = Field(1_000_000, ge=1, description="A checkpoint every so many tokens.")
    threads: int = Field(2, ge=1, description="torch threads: part of the recipe, they change the last bits of a sum.")
    bf16: bool = Field(True, description="bf16 autocast; weights and optimizer stay fp32.")
    compiled: bool = Field(True, description="torch.compile: half a minute to compile, a third faster afterwards.")
    seed: int = Field(7, description="Of the weights, the row kinds and the choice of text.")

    def steps(self, tokens: int) -> int:
        """Optimizer steps that ``tokens`` tokens make, rounded down."""
        return tokens // (self.rows_per_step * self.context)

    def learning_rate_factor(self, step: int) -> float:
        """Warm-up, plateau, linear decay to zero (WSD): the factor on both peak rates at optimizer step ``step``."""
        total, warmup, decay = (
            self.steps(self.total_tokens),
            self.steps(self.warmup_tokens),
            self.steps(self.decay_tokens),
        )
        return max(0.0, min(1.0, (step + 1) / max(1, warmup), (total - step) / max(1, decay)))
