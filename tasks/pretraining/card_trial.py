"""Part of the card: roots, chunks in front of them, and what that does to the entropy of their uncertain tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedTokenizerBase

from models.scoring import Context, Scorer
from tasks.corpus.documents import RawDocument
from tasks.corpus.overlap import RUN_CHARACTERS, RunIndex
from tasks.corpus.splitting import unit_hash
from tasks.corpus.windows import cut_windows
from tasks.screening.entropy import EntropyConfig, query_window, select_positions
from tasks.screening.verification import is_literal, prefixed, relative_gain, separator_ids


class CardConfig(BaseModel):
    """The settings of the measurement. All ours but alpha, epsilon and the query's width."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    roots: int = Field(100, ge=1, description="Roots that are screened.")
    chunks: int = Field(4_000, ge=10, description="Chunks in the index, chosen by hash of their document.")
    root_tokens: int = Field(384, ge=32, description="Longest root. Tokens.")
    min_root_tokens: int = Field(192, ge=17, description="Shortest root. Tokens.")
    chunk_tokens: int = Field(120, ge=8, description="Longest chunk. Tokens.")
    min_chunk_tokens: int = Field(24, ge=1, description="Shortest chunk. Tokens.")
    top_k: int = Field(16, ge=1, description="Candidates per position that are not excluded.")
    random_chunks: int = Field(16, ge=1, description="Random chunks per root, each judged at all its positions.")
    epsilon: float = Field(0.4, ge=0, lt=1, description="Kept when the gain is larger. Paper: 0.4.")
    entropy: EntropyConfig = Field(default_factory=EntropyConfig, description="Positions and queries. Paper.")
    separator: str = Field("\n\n", description="Between chunk and root. Inferred.")
    copies: int = Field(200, ge=1, description="Rows of the copy test.")
    passage: int = Field(128, ge=8, description="Passage set twice in a row of the copy test. Tokens.")
    loss_rows: int = Field(200, ge=1, description="Rows of plain held-out text whose loss is taken.")
    row_tokens: int = Field(512, ge=32, description="Length of such a row. Tokens.")
    seed: int = Field(0, description="Salt of every choice.")


class TextEmbedder(Protocol):
    """What the measurement needs of an embedder: unit vectors [n, d] of texts."""

    def encode(self, texts: Sequence[str], kind: Literal["query", "passage"]) -> npt.NDArray[np.float32]:
        """The vectors, in the order of the texts."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A root or a chunk: its document's number, its text, and its tokens when tokenised alone."""

    document: int
    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """One (position, chunk) pair of a root: the relative gain in entropy, and whether the chunk holds the bigram."""

    root: int
    chunk: int
    gain: float
    literal: bool


class Trial:
    """Roots and an index of chunks from the same documents; ``screen`` puts one root through the whole test."""

    def __init__(
        self,
        scorer: Scorer,
        tokenizer: PreTrainedTokenizerBase,
        documents: Sequence[RawDocument],
        embedder: TextEmbedder,
        config: CardConfig,
    ) -> None:
        self._scorer = scorer
        self._tokenizer = tokenizer
        self._embedder = embedder
        self._config = config
        self._separator = separator_ids(tokenizer, config.separator)
        self.roots = self._cut_roots(documents)
        self.chunks = self._cut_chunks(documents)
        self._vectors = embedder.encode([chunk.text for chunk in self.chunks], "passage")

    def screen(self, number: int) -> tuple[int, list[Judged], list[Judged]]:
        """How many tokens of root ``number`` are uncertain, what retrieved chunks do to them, what random ones do."""
        config, root = self._config, self.roots[number]
        (score,) = self._scorer.score([Context(root.ids, range(1, len(root.ids)))])
        entropies = np.concatenate([np.zeros(1, np.float32), score.entropy.numpy()])
        positions = select_positions(entropies, 1, config.entropy).positions
        if not positions:
            return 0, [], []
        allowed = self._allowed(root)
        retrieved = self._retrieve(root, positions, allowed)
        order = sorted(np.flatnonzero(allowed), key=lambda c: unit_hash("card-random", config.seed, number, int(c)))
        drawn = [(t, int(chunk)) for chunk in order[: config.random_chunks] for t in positions]
        return len(positions), self._judge(number, entropies, retrieved), self._judge(number, entropies, drawn)

    def _windows(self, document: RawDocument, number: int, longest: int, shortest: int) -> Iterator[Piece]:
        def encode(text: str) -> tuple[Sequence[int], Sequence[tuple[int, int]]]:
            encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            return encoded["input_ids"], encoded["offset_mapping"]

        for window in cut_windows(document.text, encode, max_tokens=longest, min_tokens=shortest):
            yield Piece(number, document.text[window.start : window.end], window.ids)

    def _cut_roots(self, documents: Sequence[RawDocument]) -> list[Piece]:
        """One window each of the documents that come first by hash."""
        config = self._config
        roots: list[Piece] = []
        for number in sorted(
            range(len(documents)), key=lambda d: unit_hash("card-root", config.seed, documents[d].source)
        ):
            if len(roots) == config.roots:
                break
            found = list(self._windows(documents[number], number, config.root_tokens, config.min_root_tokens))
            if found:
                roots.append(min(found, key=lambda piece: unit_hash("card-window", config.seed, piece.text)))
        return roots

    def _cut_chunks(self, documents: Sequence[RawDocument]) -> list[Piece]:
        """The chunks of all documents, thinned by hash to as many as are wanted, in the order of the documents."""
        config = self._config
        chunks = [
            chunk
            for number, document in enumerate(documents)
            for chunk in self._windows(document, number, config.chunk_tokens, config.min_chunk_tokens)
        ]
        order = sorted(range(len(chunks)), key=lambda c: unit_hash("card-chunk", config.seed, chunks[c].text))
        return [chunks[c] for c in sorted(order[: config.chunks])]

    def _allowed(self, root: Piece) -> npt.NDArray[np.bool_]:
        """Which chunks may stand before the root: not of its document, and no copy of a piece of it. bool [chunks]."""
        runs = RunIndex(root.text, RUN_CHARACTERS)
        return np.asarray([c.document != root.document and not runs.shares(c.text) for c in self.chunks])

    def _retrieve(self, root: Piece, positions: Sequence[int], allowed: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
        """(position, chunk): the nearest allowed chunks of every position by cosine."""
        radius = self._config.entropy.query_radius
        queries = self._tokenizer.batch_decode([list(query_window(root.ids, t, radius)) for t in positions])
        similarity = self._embedder.encode(queries, "query") @ self._vectors.T
        similarity[:, ~allowed] = -2.0
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, : self._config.top_k]
        return [(t, int(c)) for t, row in zip(positions, nearest, strict=True) for c in row if allowed[c]]

    def _judge(self, number: int, before: npt.NDArray[np.float32], pairs: Sequence[tuple[int, int]]) -> list[Judged]:
        """The gain of every pair; one forward pass per chunk serves all its positions."""
        root = self.roots[number]
        chunks = sorted({chunk for _, chunk in pairs})
        positions = {chunk: [t for t, other in pairs if other == chunk] for chunk in chunks}
        contexts: list[Context] = []
        for chunk in chunks:
            ids = prefixed((), self.chunks[chunk].ids, self._separator, root.ids)
            contexts.append(Context(ids, [len(ids) - len(root.ids) + t for t in positions[chunk]]))
        judged: list[Judged] = []
        for chunk, score in zip(chunks, self._scorer.score(contexts), strict=True):
            for t, after in zip(positions[chunk], score.entropy.tolist(), strict=True):
                literal = is_literal(self.chunks[chunk].ids, root.ids[t - 1], root.ids[t])
                judged.append(Judged(number, chunk, relative_gain(float(before[t]), after), literal))
        return judged
