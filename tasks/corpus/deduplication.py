"""Duplicates: the same text twice, and nearly the same text twice; the first one in reading order stays.

Exact duplicates are equal digests of the normalised text. Near duplicates are found with MinHash and
locality-sensitive hashing (``datasketch``) over windows of characters, which need no idea of a word, and confirmed
by the estimated Jaccard similarity.
"""

from __future__ import annotations

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from tasks.corpus.overlap import distinct, text_hashes
from tasks.corpus.quarantine import Refusal

SHINGLES_PER_BATCH = 8192
"""Shingles hashed at once: with 128 permutations 4 MB, which a cache holds."""


class DeduplicationConfig(BaseModel):
    """How alike two documents may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    near: bool = Field(True, description="Look for near duplicates too. Ours.")
    threshold: float = Field(
        0.8, gt=0, lt=1, description="Jaccard similarity from which one is refused. Ours, common practice."
    )
    permutations: int = Field(
        128, ge=16, le=1024, description="MinHash permutations; error of the similarity 1/sqrt of it. Ours."
    )
    shingle: int = Field(24, ge=4, description="Window that is compared, folded characters: four to five words. Ours.")
    sample: int = Field(
        4, ge=1, description="Compare one window in so many, chosen by its hash. Ours: a quarter of the time."
    )
    min_shingles: int = Field(16, ge=1, description="Shorter documents are compared exactly only. Windows. Ours.")
    seed: int = Field(1, ge=0, description="Seed of the permutations.")


class Deduplicator:
    """Remembers every document it let through: 16 bytes of digest, and for near duplicates about 4 KB of signature."""

    def __init__(self, config: DeduplicationConfig) -> None:
        self._config = config
        self._digests: dict[bytes, str] = {}
        self._empty = MinHash(num_perm=config.permutations, seed=config.seed, hashfunc=int)
        self._index = MinHashLSH(threshold=config.threshold, num_perm=config.permutations)
        self._kept: dict[str, MinHash] = {}

    def refuse(self, doc_id: str, text: str, source: str) -> Refusal | None:
        """Why this document is a duplicate of an earlier one; ``None`` when it is new, and it is remembered then."""
        digest = bytes.fromhex(doc_id)[:16]
        if (earlier := self._digests.get(digest)) is not None:
            return Refusal("duplicate", f"the same as {earlier}", text)
        signature = self._signature(text) if self._config.near else None
        if signature is not None:
            likeness, near = self._nearest(signature)
            if likeness >= self._config.threshold:
                return Refusal("near-duplicate", f"{likeness:.2f} alike to {near}", text)
            if source not in self._kept:
                self._index.insert(source, signature, check_duplication=False)
                self._kept[source] = signature
        self._digests[digest] = source
        return None

    def _nearest(self, signature: MinHash) -> tuple[float, str]:
        found = ((signature.jaccard(self._kept[key]), key) for key in sorted(self._index.query(signature)))
        return max(found, default=(0.0, ""), key=lambda pair: pair[0])

    def _signature(self, text: str) -> MinHash | None:
        values = shingles(text, self._config)
        if len(values) < self._config.min_shingles:
            return None
        signature = self._empty.copy()
        for start in range(0, len(values), SHINGLES_PER_BATCH):
            signature.update_batch(values[start : start + SHINGLES_PER_BATCH].tolist())
        return signature


def shingles(text: str, config: DeduplicationConfig) -> NDArray[np.uint64]:
    """The distinct sampled windows of a text as 32-bit hashes ``[n]``."""
    hashes = text_hashes(text, config.shingle)
    return distinct(hashes[hashes % np.uint64(config.sample) == 0] >> np.uint64(32))
