"""Verdicts: does a candidate really lower the policy's entropy at the positions that retrieved it? (docs/method.md 2.5)

    gain = (H_t - H'_t) / H_t          kept when gain > epsilon

H'_t is the entropy with the candidate in front of the root. Chunk, separator and root are tokenised separately and
their ids concatenated (BOS once, if any), here and in the samples: joining text first would shift the root's tokens.
One forward pass per (root, chunk) serves every position of the root that retrieved the chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from models.scoring import Context, Scores
from storage.checkpoints import work_uri
from storage.corpora import corpus_to_read
from storage.errors import ConfigError
from storage.home import Home
from storage.refs import Ref
from storage.schemas import VERDICTS
from storage.tables import read_table, write_table
from tasks.checkpointed import step
from tasks.corpus.splitting import unit_hash
from tasks.progress import progress
from tasks.resources import PolicyInputs, ReadyPolicy, policy_for
from tasks.screening.passages import Passages
from tasks.screening.placebos import placebo_ids

SEPARATOR = "\n\n"
Ordering = Literal["exhaustive", "rank", "expected-yield"]
_BUDGET = ("ordering", "quota", "passes_per_root", "floor", "wave", "learning_share")


class VerificationConfig(BaseModel):
    """The paper's test, what is recorded beside it, and how much of it is done.

    An exhaustive verification has no budget: its dump, and so every digest of it, leaves these options out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epsilon: float = Field(0.4, ge=0, lt=1, description="A candidate is kept when its gain is larger. [paper 2.5]")
    separator: str = Field(
        SEPARATOR, description="Stands between contexts and root, here and in the samples. [inferred 2.7]"
    )
    placebo_fraction: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of roots at which a random chunk of the same length is scored as well. [ours 2.5]",
    )
    copy_characters: int = Field(
        64, ge=8, description="Exclusion rule for the placebo chunks; as in retrieval. [ours 2.5]"
    )
    seed: int = Field(0, description="Salt of the placebo's choice. [ours 2.5]")
    ordering: Ordering = Field(
        "exhaustive",
        description="exhaustive verifies every candidate; rank and expected-yield verify a root's candidates in that"
        " order within a budget: quota, passes_per_root or floor. [paper 2.5]",
    )
    quota: int | None = Field(
        None, ge=1, description="A root stops after the wave in which it has so many positives. [ours 2.5]"
    )
    passes_per_root: int | None = Field(None, ge=1, description="Most chunks put before one root. [ours 2.5]")
    floor: float | None = Field(
        None,
        gt=0,
        description="With expected-yield, a root stops where fewer positives are expected per 1,000 tokens read."
        " [ours 2.5]",
    )
    wave: int = Field(
        8, ge=1, description="Chunks of each root verified together before its quota is looked at. [ours 2.5]"
    )
    learning_share: float = Field(
        0.125,
        gt=0,
        le=1,
        description="Share of a round's shards, its first, that expected-yield verifies exhaustively and learns from."
        " [ours 2.5]",
    )

    @model_validator(mode="after")
    def _budget_has_an_order(self) -> VerificationConfig:
        budget = [name for name in ("quota", "passes_per_root", "floor") if getattr(self, name) is not None]
        if self.ordering == "exhaustive" and budget:
            raise ValueError(f"{budget[0]} needs an order: set ordering to rank or expected-yield")
        if self.ordering != "exhaustive" and not budget:
            raise ValueError(f"ordering {self.ordering} needs a budget: set quota, passes_per_root or floor")
        if self.floor is not None and self.ordering != "expected-yield":
            raise ValueError(f"floor needs ordering expected-yield, not {self.ordering}")
        return self

    @model_serializer(mode="wrap")
    def _without_an_empty_budget(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = dump(self)
        return document if self.ordered else {name: v for name, v in document.items() if name not in _BUDGET}

    @property
    def ordered(self) -> bool:
        """Whether candidates are verified in an order, within a budget."""
        return self.ordering != "exhaustive"

    @property
    def learns(self) -> bool:
        """Whether the order comes from the verdicts of the round's first shards."""
        return self.ordering == "expected-yield"

    @property
    def exhaustive(self) -> VerificationConfig:
        """The same test without a budget."""
        defaults = {name: type(self).model_fields[name].default for name in _BUDGET}
        return self.model_copy(update=defaults)


class VerificationInputs(BaseModel):
    """Positions and candidates of a shard, and the policy that judges them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    positions: Ref
    candidates: Ref
    roots: Ref
    corpus: str
    policy: PolicyInputs


@dataclass(frozen=True, slots=True)
class Pair:
    """One pass: a chunk (or placebo tokens) in front of a root, judged at ``positions`` of the root."""

    root: int
    chunk: int
    positions: tuple[int, ...]
    placebo: bool = False


def prefixed(
    bos: Sequence[int], chunk: Sequence[int], separator: Sequence[int], root: Sequence[int]
) -> tuple[int, ...]:
    """The ids of a verification context: BOS (if any), chunk, separator, root."""
    return (*bos, *chunk, *separator, *root)


def relative_gain(before: float, after: float) -> float:
    """(before - after) / before; 0 when there was no uncertainty to lose (docs/method.md 2.5)."""
    return (before - after) / before if before > 0 else 0.0


def is_literal(chunk: Sequence[int], previous: int | None, token: int) -> bool:
    """Whether the bigram (previous, token) stands in the chunk: copying rather than inference (docs/method.md 2.5,
    ours).
    """
    return any(a == previous and b == token for a, b in pairwise(chunk))


def pairs_of(candidates: pl.DataFrame) -> list[Pair]:
    """Unique (root, chunk) pairs of the candidates that were not excluded, with the positions that retrieved them,
    ordered.
    """
    grouped = (
        candidates.filter(pl.col("excluded").is_null())
        .sort("root", "chunk", "t")
        .group_by("root", "chunk", maintain_order=True)
        .agg(pl.col("t"))
    )
    return [Pair(root, chunk, tuple(ts)) for root, chunk, ts in grouped.select("root", "chunk", "t").iter_rows()]


@step("verification", code_version=5, scores=True)
def verify(home: Home, inputs: VerificationInputs, config: VerificationConfig) -> dict[str, Ref]:
    """Scores every unique (root, chunk) once and writes one verdict per position and candidate: table ``verdicts``."""
    key = verify.key(inputs, config)
    pairs = pairs_of(read_table(home.path, inputs.candidates))
    rows: list[dict[str, Any]] = []
    if pairs:
        judge = Judge(home, inputs, config)
        rows = judge.verdicts(pairs)
        judge.close()
    return {"verdicts": write_table(home.path, work_uri(key, "verdicts"), VERDICTS, rows)}


class Judge:
    """Gives the verdicts of pairs with the policy of the inputs; ``passages`` are the shard's roots and chunks."""

    def __init__(self, home: Home, inputs: VerificationInputs, config: VerificationConfig) -> None:
        self.policy: ReadyPolicy = policy_for(inputs.policy)
        corpus = corpus_to_read(home, inputs.corpus)
        self.passages = Passages(
            home, roots=inputs.roots, chunks=corpus.chunks, documents=corpus.documents, tokenizer=self.policy.tokenizer
        )
        self.separator = separator_ids(self.policy.tokenizer, config.separator)
        self._config = config
        positions = read_table(home.path, inputs.positions)
        self._before = {(row["root"], row["t"]): row for row in positions.iter_rows(named=True)}

    def verdicts(self, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
        """Rows of table ``verdicts`` of these pairs, by root, t and chunk; roots of the placebo's share get its pass
        too.
        """
        judged = [*pairs] + [
            Pair(pair.root, pair.chunk, pair.positions, placebo=True)
            for pair in pairs
            if unit_hash("placebo", self._config.seed, self.passages.root(pair.root).root_id)
            < self._config.placebo_fraction
        ]
        policy = self.policy
        contexts = [
            _context(pair, self.passages, policy.bos, self.separator, policy.context, self._config) for pair in judged
        ]
        with progress("verification", total=sum(c.needed for c in contexts), unit="tokens") as advance:
            scores = policy.scorer.score(contexts, progress=advance)
        return _verdicts(judged, scores, self._before, self.passages, self._config)

    def tokens(self, pair: Pair) -> int:
        """Tokens that a pair's pass reads: up to the one before its last position."""
        front = len(self.policy.bos) + len(self.passages.chunk_ids(pair.chunk)) + len(self.separator)
        return front + max(pair.positions)

    def close(self) -> None:
        """Closes the files."""
        self.passages.close()


def separator_ids(tokenizer: Any, separator: str) -> tuple[int, ...]:
    """The separator's tokens; raises ``ConfigError`` when the tokenizer can't give it back."""
    ids = tokenizer(separator, add_special_tokens=False)["input_ids"]
    if separator and tokenizer.decode(ids) != separator:
        raise ConfigError(
            f"the policy's tokenizer can't encode the separator {separator!r} (build.verification.separator): it gives"
            f" back {tokenizer.decode(ids)!r}.",
            hint="Set build.verification.separator to a text that its tokens can say.",
        )
    return tuple(ids)


def _context(
    pair: Pair, passages: Passages, bos: Sequence[int], separator: Sequence[int], limit: int, config: VerificationConfig
) -> Context:
    root = passages.root(pair.root).ids
    chunk = (
        placebo_ids(passages, pair.root, pair.chunk, seed=config.seed, copy_characters=config.copy_characters)
        if pair.placebo
        else passages.chunk_ids(pair.chunk)
    )
    ids = prefixed(bos, chunk, separator, root)
    if len(ids) > limit:
        raise ConfigError(
            f"root {pair.root} ({len(root)} tokens) with chunk {pair.chunk} ({len(chunk)}) needs {len(ids)} tokens,"
            f" the policy's context is {limit}.",
            hint="Lower roots.root_tokens or chunking.max_tokens.",
        )
    offset = len(ids) - len(root)
    return Context(ids, [offset + t for t in pair.positions])


def _verdicts(
    judged: Sequence[Pair],
    scores: Sequence[Scores],
    before: Mapping[tuple[int, int], Mapping[str, Any]],
    passages: Passages,
    config: VerificationConfig,
) -> list[dict[str, Any]]:
    placebo: dict[tuple[int, int, int], float] = {}
    rows: list[dict[str, Any]] = []
    for pair, score in sorted(zip(judged, scores, strict=True), key=lambda item: not item[0].placebo):
        root, chunk = passages.root(pair.root), passages.chunk_ids(pair.chunk)
        for t, entropy, nll in zip(pair.positions, score.entropy.tolist(), score.nll.tolist(), strict=True):
            was = before[pair.root, t]
            gain = relative_gain(was["entropy"], entropy)
            if pair.placebo:
                placebo[pair.root, t, pair.chunk] = gain
                continue
            kept = gain > config.epsilon
            rows.append(
                {
                    "root": pair.root,
                    "t": t,
                    "chunk": pair.chunk,
                    "entropy_before": was["entropy"],
                    "entropy_after": entropy,
                    "nll_before": was["nll"],
                    "nll_after": nll,
                    "gain": gain,
                    "literal": t > 0 and is_literal(chunk, root.ids[t - 1], root.ids[t]),
                    "placebo_gain": placebo.get((pair.root, t, pair.chunk)),
                    "kept": kept,
                    "reason": None if kept else "gain-too-small",
                }
            )
    return sorted(rows, key=lambda row: (row["root"], row["t"], row["chunk"]))
