"""Verdicts: does a candidate really lower the policy's entropy at the positions that retrieved it? (docs/method.md 2.5)

    gain = (H_t - H'_t) / H_t          kept when gain > epsilon

H'_t is the entropy with the candidate in front of the root. Chunk, separator and root are tokenised separately and
their ids concatenated (BOS once, if any), here and in the samples: joining text first would shift the root's tokens.
One forward pass per (root, chunk) serves every position of the root that retrieved the chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from models.scoring import Context, Scores
from storage.checkpoints import work_uri
from storage.corpora import open_corpus
from storage.errors import ConfigError
from storage.home import Home
from storage.refs import Ref
from storage.schemas import VERDICTS
from storage.tables import read_table, write_table
from tasks.checkpointed import step
from tasks.corpus.splitting import unit_hash
from tasks.progress import progress
from tasks.resources import PolicyInputs, policy_for
from tasks.screening.passages import Passages
from tasks.screening.retrieval import exclusion

SEPARATOR = "\n\n"


class VerificationConfig(BaseModel):
    """The paper's test and what is recorded beside it."""

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


@step("verification", code_version=1)
def verify(home: Home, inputs: VerificationInputs, config: VerificationConfig) -> dict[str, Ref]:
    """Scores every unique (root, chunk) once and writes one verdict per position and candidate: table ``verdicts``."""
    key = verify.key(inputs, config)
    candidates = read_table(home.path, inputs.candidates)
    pairs = pairs_of(candidates)
    rows: list[dict[str, Any]] = []
    if pairs:
        policy = policy_for(inputs.policy)
        corpus = open_corpus(home, inputs.corpus)
        passages = Passages(
            home, roots=inputs.roots, chunks=corpus.chunks, documents=corpus.documents, tokenizer=policy.tokenizer
        )
        separator = separator_ids(policy.tokenizer, config.separator)
        judged = pairs + [
            Pair(pair.root, pair.chunk, pair.positions, placebo=True)
            for pair in pairs
            if unit_hash("placebo", config.seed, passages.root(pair.root).root_id) < config.placebo_fraction
        ]
        contexts = [_context(pair, passages, policy.bos, separator, policy.context, config) for pair in judged]
        with progress("verification", total=sum(c.needed for c in contexts), unit="tokens") as advance:
            scores = policy.scorer.score(contexts, progress=advance)
        positions = read_table(home.path, inputs.positions)
        before = {(row["root"], row["t"]): row for row in positions.iter_rows(named=True)}
        rows = _verdicts(judged, scores, before, passages, config)
        passages.close()
    return {"verdicts": write_table(home.path, work_uri(key, "verdicts"), VERDICTS, rows)}


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


def placebo_ids(passages: Passages, pair: Pair, config: VerificationConfig) -> tuple[int, ...]:
    """Tokens of random chunks, as many as the pair's chunk has, drawn by hash under the same exclusion rules."""
    wanted = len(passages.chunk_ids(pair.chunk))
    seed = f"{config.seed}:{passages.root(pair.root).root_id}:{passages.chunk(pair.chunk).chunk_id}"
    ids: list[int] = []
    for draw in range(64 * (1 + wanted)):
        number = int.from_bytes(hashlib.sha256(f"{seed}:{draw}".encode()).digest()[:8], "big") % passages.chunk_count
        if number != pair.chunk and exclusion(passages, pair.root, number, config.copy_characters) is None:
            ids.extend(passages.chunk_ids(number))
        if len(ids) >= wanted:
            break
    return tuple(ids[:wanted])


def _context(
    pair: Pair, passages: Passages, bos: Sequence[int], separator: Sequence[int], limit: int, config: VerificationConfig
) -> Context:
    root = passages.root(pair.root).ids
    chunk = placebo_ids(passages, pair, config) if pair.placebo else passages.chunk_ids(pair.chunk)
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
