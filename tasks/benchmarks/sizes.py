"""How much each benchmark does: ``full`` is what docs/performance.md reports, ``small`` ends in a minute or two."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SizeName = Literal["small", "full"]


class Size(BaseModel):
    """Numbers of things; none of them changes what is compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SizeName
    repeats: int = Field(ge=1, description="Timed repeats of each way, after one untimed.")
    roots: int = Field(ge=1, description="Roots screened both ways.")
    stress_roots: int = Field(ge=1, description="Long roots whose candidates are looked up.")
    stress_tokens: int = Field(ge=16, description="Tokens of a long root.")
    stress_passes: int = Field(ge=1, description="Passes taken from those of the long roots.")
    corpus_characters: int = Field(ge=10_000, description="Text of the larger corpus, characters.")
    chunks: int = Field(ge=64, description="Chunks of it that are searched, at most.")
    queries: int = Field(ge=1)
    round_roots: int = Field(ge=1, description="Roots of a round at books settings.")
    assembled_roots: int = Field(ge=1, description="Roots whose contexts are assembled into samples.")
    sample_tokens: int = Field(ge=128, description="Tokens of such a sample.")
    growth_chunks: tuple[int, int] = Field(description="Chunks of the smaller and the larger table.")
    growth_roots: int = Field(ge=1)
    memory_tokens: int = Field(ge=64, description="Tokens in flight, ours.")
    memory_tokens_full: int = Field(ge=64, description="Tokens in flight of the alternative, which fit this machine.")
    memory_vocabulary: int = Field(ge=256)
    yield_roots: int = Field(ge=2, description="Roots whose verdicts say what an order would have found.")
    scale: tuple[int, ...] = Field(description="Synthetic vectors.")
    scale_graph: int = Field(description="Most synthetic vectors for which graphs are built too.")


FULL = Size(
    name="full",
    repeats=3,
    roots=8,
    stress_roots=2,
    stress_tokens=1024,
    stress_passes=64,
    corpus_characters=9_500_000,
    chunks=20_000,
    queries=64,
    round_roots=64,
    assembled_roots=400,
    sample_tokens=16_384,
    growth_chunks=(10_000, 200_000),
    growth_roots=6,
    memory_tokens=65_536,
    memory_tokens_full=8_192,
    memory_vocabulary=151_936,
    yield_roots=64,
    scale=(200_000, 1_000_000),
    scale_graph=200_000,
)
SMALL = Size(
    name="small",
    repeats=1,
    roots=1,
    stress_roots=1,
    stress_tokens=256,
    stress_passes=6,
    corpus_characters=400_000,
    chunks=2_000,
    queries=16,
    round_roots=8,
    assembled_roots=12,
    sample_tokens=4_096,
    growth_chunks=(500, 2_000),
    growth_roots=1,
    memory_tokens=2_048,
    memory_tokens_full=512,
    memory_vocabulary=16_384,
    yield_roots=16,
    scale=(5_000,),
    scale_graph=5_000,
)
SIZES: dict[SizeName, Size] = {"full": FULL, "small": SMALL}
