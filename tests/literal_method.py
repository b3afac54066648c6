"""The method word for word, as slowly as it reads: the reference that the product is compared with.

Written from docs/method.md alone (the numbers below are its sections) and without a line of the steps in ``tasks``: a
forward pass of the whole model for every single prediction, the softmax of all its logits in float64, cosines of every
pair in float64, substrings looked for one by one. Nothing is batched, kept or cut short.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

RUN_CHARACTERS = 64
NEAR_DUPLICATE_COSINE = 0.97
SCORE_DECIMALS = 6


@dataclass(frozen=True)
class Chunk:
    """A passage of the index: its document's number and its text."""

    doc: int
    text: str


@dataclass(frozen=True)
class Root:
    """A window of a document: the document's number, the window's text and its tokens."""

    doc: int
    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Prediction:
    """Entropy (nats) of one next-token distribution, and the negative log-likelihood (nats) of the token that came."""

    entropy: float
    nll: float


@dataclass(frozen=True)
class Verdict:
    """What one candidate does to one position: predictions without and with it, gain, literal copy or not."""

    before: Prediction
    after: Prediction
    gain: float
    literal: bool


class LiteralPolicy:
    """A policy in fp32 that is asked for one prediction at a time."""

    def __init__(self, model: Any, tokenizer: Any, separator: str = "\n\n") -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        first = tokenizer("a")["input_ids"][:1]
        self.bos = tuple(first) if tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id] else ()
        self.separator = self.tokens(separator)

    @classmethod
    def load(cls, folder: Path, separator: str = "\n\n") -> LiteralPolicy:
        """The policy of a folder; its tokenizer as tokenizer.json says, not as its model's family usually has it."""
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        return cls(model, PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True), separator)

    def tokens(self, text: str) -> tuple[int, ...]:
        """The text tokenised alone, nothing added."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @torch.no_grad()
    def predict(self, before: Sequence[int], token: int) -> Prediction:
        """The prediction of ``token`` after the ids ``before``: one pass, the distribution of the last logits (2.1)."""
        logits = self.model(input_ids=torch.tensor([list(before)])).logits[0]
        p = torch.softmax(logits.double(), dim=-1)[len(before) - 1]
        entropy = -sum(x * math.log(x) for x in p[p > 0].tolist())
        return Prediction(entropy, -math.log(float(p[token])) if p[token] > 0 else math.inf)

    def root_predictions(self, ids: Sequence[int]) -> dict[int, Prediction]:
        """The prediction of every x_t from x_<t; t = 0 has none unless there is a BOS (2.1)."""
        first = 0 if self.bos else 1
        return {t: self.predict((*self.bos, *ids[:t]), ids[t]) for t in range(first, len(ids))}

    def with_chunk(self, chunk: str, ids: Sequence[int], t: int) -> Prediction:
        """The prediction of x_t with a chunk in front: chunk, separator and root tokenised apart, BOS once (2.5)."""
        return self.predict((*self.bos, *self.tokens(chunk), *self.separator, *ids[:t]), ids[t])

    def query(self, ids: Sequence[int], t: int, radius: int) -> str:
        """The decoded query of a position (2.3)."""
        return str(self.tokenizer.decode(window(ids, t, radius)))

    def verdict(self, chunk: str, ids: Sequence[int], t: int, before: Prediction) -> Verdict:
        """The paper's test of one candidate at one position, and what is recorded beside it (2.5)."""
        after, words = self.with_chunk(chunk, ids, t), self.tokens(chunk)
        copied = t > 0 and any(words[i : i + 2] == tuple(ids[t - 1 : t + 1]) for i in range(len(words)))
        return Verdict(before, after, relative_gain(before.entropy, after.entropy), copied)


def relative_gain(before: float, after: float) -> float:
    """(H - H') / H; nothing can be gained where there was no uncertainty (2.5)."""
    return (before - after) / before if before > 0 else 0.0


def threshold(entropies: Iterable[float], alpha: float) -> float:
    """mu + alpha * sigma with the population's sigma, nats (2.2)."""
    values = list(entropies)
    mean = sum(values) / len(values)
    return mean + alpha * math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def selected(entropies: Mapping[int, float], alpha: float, min_context: int) -> tuple[float, list[int]]:
    """The threshold and every t over it; both of the same t >= min_context (2.2)."""
    used = {t: entropy for t, entropy in entropies.items() if t >= min_context}
    if not used:
        return 0.0, []
    tau = threshold(used.values(), alpha)
    return tau, [t for t, entropy in sorted(used.items()) if entropy > tau]


def window(ids: Sequence[int], t: int, radius: int) -> list[int]:
    """x_{t-w} .. x_{t+w} inclusive, clipped at the borders (2.3)."""
    return [ids[i] for i in range(t - radius, t + radius + 1) if 0 <= i < len(ids)]


def folded(text: str) -> str:
    """The text with every run of white space as one blank."""
    return " ".join(text.split())


def share_run(a: str, b: str, length: int = RUN_CHARACTERS) -> bool:
    """Whether some ``length`` characters of one folded text stand in the other (2.4)."""
    one, other = folded(a), folded(b)
    return any(one[i : i + length] in other for i in range(len(one) - length + 1))


def cosines(query: NDArray[Any], vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine of one vector [d] with each of many [n, d], float64 [n]."""
    a, b = query.astype(np.float64), vectors.astype(np.float64)
    return np.asarray((b @ a) / (np.linalg.norm(b, axis=1) * np.linalg.norm(a)))


def neighbours(scores: Sequence[float] | NDArray[np.float64]) -> list[int]:
    """Every chunk, the nearest first; equal scores (to ``SCORE_DECIMALS``) by number."""
    return sorted(range(len(scores)), key=lambda chunk: (-round(float(scores[chunk]), SCORE_DECIMALS), chunk))


def exclusions(chunk: Chunk, root: Root, length: int = RUN_CHARACTERS) -> set[str]:
    """Every reason why a chunk may not stand before a root (2.4)."""
    reasons = {"root-document"} if chunk.doc == root.doc else set()
    return reasons | ({"copy"} if share_run(chunk.text, root.text, length) else set())


def candidates(
    order: Iterable[int], chunks: Sequence[Chunk], root: Root, *, top_k: int, looked_at: int, length: int
) -> list[tuple[int, set[str]]]:
    """(chunk, reasons against it) from the nearest on, until ``top_k`` are without one or ``looked_at`` were seen."""
    found: list[tuple[int, set[str]]] = []
    for chunk in list(order)[:looked_at]:
        if sum(not reasons for _, reasons in found) == top_k:
            break
        found.append((chunk, exclusions(chunks[chunk], root, length)))
    return found


def once_per_root(kept: Iterable[tuple[int, int, int]]) -> dict[tuple[int, int], list[int]]:
    """Kept (root, t, chunk) as the positions of each (root, chunk): a chunk's text enters once per root (2.5)."""
    found: dict[tuple[int, int], list[int]] = {}
    for root, t, chunk in sorted(kept):
        found.setdefault((root, chunk), []).append(t)
    return found


def negative_reasons(
    chunk: int,
    seed: int,
    cosine: float,
    positives: Iterable[int],
    chunks: Sequence[Chunk],
    root: Root,
    *,
    length: int = RUN_CHARACTERS,
    copy_cosine: float = NEAR_DUPLICATE_COSINE,
) -> set[str]:
    """Every reason why a positive's neighbour is no hard negative of its root (2.6)."""
    reasons = exclusions(chunks[chunk], root, length)
    if chunk in positives:
        reasons.add("positive")
    if cosine > copy_cosine or share_run(chunks[chunk].text, chunks[seed].text, length):
        reasons.add("near-duplicate")
    return reasons
