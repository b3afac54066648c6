"""An embedder for tests of everything around it: counts words, reads 40 words, loads in no time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

DIGEST = "5" * 64
DIMENSION = 24
LIMIT = 40


class SmallEmbedder:
    """Unit vectors of hashed word counts; remembers how many texts it embedded."""

    digest = DIGEST
    dimension = DIMENSION
    limit = LIMIT

    def __init__(self) -> None:
        self.embedded = 0

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Words of each text and two more."""
        return [len(text.split()) + 2 for text in texts]

    def encode(
        self, texts: Sequence[str], kind: str, *, advance: Callable[[float], None] | None = None
    ) -> NDArray[np.float32]:
        """Unit vectors [n, DIMENSION]."""
        self.embedded += len(texts)
        vectors = np.full((len(texts), DIMENSION), 1e-3)
        for row, text in enumerate(texts):
            for word in text.split():
                vectors[row, hashlib.sha256(word.encode("utf-8")).digest()[0] % DIMENSION] += 1
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def use_small_embedder(monkeypatch: pytest.MonkeyPatch) -> SmallEmbedder:
    """Puts a ``SmallEmbedder`` in place of the real one in every step of an ingest."""
    small = SmallEmbedder()
    monkeypatch.setattr("tasks.corpus.chunk_table.load_embedder", lambda config: small)
    monkeypatch.setattr("tasks.corpus.embedding.load_embedder", lambda config: small)
    monkeypatch.setattr("flows.ingest.embedder_digest", lambda config: DIGEST)
    return small
