"""Which part of the corpus a document belongs to: pretrain, screen, probe or heldout.

A model that has seen a text shows memory, not uncertainty, so what the base model is pretrained on, what is screened
and what is evaluated on are disjoint. The part follows from a hash of the document's group (its distribution or
title), so related documents stay together and the same document falls into the same part on every machine.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Part = Literal["pretrain", "screen", "probe", "heldout"]
PARTS: tuple[Part, ...] = ("pretrain", "screen", "probe", "heldout")


class SplitConfig(BaseModel):
    """Shares of the parts; ``screen`` is what remains."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pretrain: float = Field(0.0, ge=0, lt=1, description="Share of groups a base model may be pretrained on. Ours.")
    heldout: float = Field(0.1, ge=0, lt=1, description="Share of groups kept for evaluation only. Ours.")
    probe: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Share of the screened documents set aside as probe roots, not in the index. Ours.",
    )
    seed: int = Field(0, description="Salt of the hash.")

    @model_validator(mode="after")
    def _leaves_something_to_screen(self) -> SplitConfig:
        if self.pretrain + self.heldout >= 1:
            raise ValueError(f"pretrain {self.pretrain} + heldout {self.heldout} leave nothing to screen")
        return self


def unit_hash(*words: str | int) -> float:
    """A number in [0, 1) that depends on the words alone (first 8 bytes of a SHA-256)."""
    digest = hashlib.sha256("\x1f".join(map(str, words)).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def part_of(group: str, doc_id: str, config: SplitConfig) -> Part:
    """The part of a document: its group decides, and inside the screened part its own id picks the probe documents."""
    position = unit_hash("split", config.seed, group)
    if position < config.pretrain:
        return "pretrain"
    if position < config.pretrain + config.heldout:
        return "heldout"
    return "probe" if unit_hash("probe", config.seed, doc_id) < config.probe else "screen"
