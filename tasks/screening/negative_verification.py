"""Verified negatives: is a hard negative really unhelpful? (docs/method.md 2.6 and 6, ours: the paper does not ask)

    max_gain = max over the root's selected t of (H_t - H'_t) / H_t          kept when max_gain < epsilon

H_t is the entropy recorded with the position, H'_t the entropy with the negative in front of the root, the very context
in which candidates are verified (docs/method.md 2.5). One forward pass per (root, chunk) serves all positions.

Every positive has a row of spares, nearest first, and verifying all of them would cost more than the positives did. So
each row is walked in order until enough unhelpful ones are found; what was not reached is kept out with the reason
``not-verified``. Several rows are walked at once, in waves: a wave asks only for pairs that a walk on its own would ask
for, so the result is that of one walk after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from models.scoring import Context
from storage.checkpoints import work_uri
from storage.corpora import corpus_to_read
from storage.errors import ConfigError, IntegrityError
from storage.home import Home
from storage.refs import Ref
from storage.schemas import NEGATIVES
from storage.tables import read_table, write_table
from tasks.checkpointed import step
from tasks.progress import progress
from tasks.resources import PolicyInputs, ReadyPolicy, policy_for
from tasks.screening.passages import Passages
from tasks.screening.verification import prefixed, relative_gain, separator_ids

HELPFUL = "helpful"
NOT_VERIFIED = "not-verified"
PairKey = tuple[int, int]
"""(row of the root, row of the chunk)."""
Measure = Callable[[Sequence[PairKey]], Mapping[PairKey, float]]
"""Largest gain of each pair."""


class NegativeVerificationConfig(BaseModel):
    """Which hard negatives the policy has to find unhelpful before they may stand in a sample."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(False, description="Verify the hard negatives of a round. [paper 2.6]")
    epsilon: float = Field(
        0.1, gt=0, lt=1, description="A negative whose largest gain reaches this is helpful and is left out. [ours 2.6]"
    )
    spares: int = Field(
        1,
        ge=0,
        description="Unhelpful negatives looked for per positive beside negatives_per_positive: they fill a sample up"
        " and stand in for those that a sample's other roots exclude. [ours 2.6]",
    )


class NegativeVerificationInputs(BaseModel):
    """Negatives and positions of a shard, and the policy that judges them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    negatives: Ref
    positions: Ref
    roots: Ref
    corpus: str
    policy: PolicyInputs
    separator: str = Field(description="As in verification.")
    negatives_per_positive: int = Field(ge=0, description="As in negatives.")


@step("negative-verification", code_version=5, scores=True)
def verify_negatives(
    home: Home, inputs: NegativeVerificationInputs, config: NegativeVerificationConfig
) -> dict[str, Ref]:
    """The table ``negatives`` anew: ``max_gain`` of the verified rows, helpful and unverified ones no longer kept."""
    key = verify_negatives.key(inputs, config)
    rows = read_table(home.path, inputs.negatives).to_dicts()
    walks = walks_of(rows)
    if walks:
        judge = _Judge(home, inputs)
        gains = verified_gains(walks, inputs.negatives_per_positive + config.spares, config.epsilon, judge.gains)
        judge.passages.close()
        rows = [judged(row, gains, config.epsilon) for row in rows]
    return {"negatives": write_table(home.path, work_uri(key, "negatives"), NEGATIVES, rows)}


def walks_of(rows: Sequence[Mapping[str, Any]]) -> list[list[PairKey]]:
    """The kept rows of each seed (of each root), nearest first: the order in which they are verified."""
    walks: dict[tuple[int, int], list[PairKey]] = {}
    for row in sorted(rows, key=lambda row: (row["root"], row["seed_chunk"], row["rank"], row["chunk"])):
        if row["kept"]:
            walks.setdefault((row["root"], row["seed_chunk"]), []).append((row["root"], row["chunk"]))
    return list(walks.values())


def verified_gains(
    walks: Sequence[Sequence[PairKey]], wanted: int, epsilon: float, measure: Any
) -> dict[PairKey, float]:
    """Largest gain of every pair that has to be known so that each walk finds ``wanted`` unhelpful ones, or ends.

    ``measure`` is asked for new pairs only, once per wave.
    """
    known: dict[PairKey, float] = {}
    while True:
        asked: dict[PairKey, None] = {}
        for walk in walks:
            found = 0
            for pair in walk:
                if found == wanted:
                    break
                if pair not in known:
                    asked[pair] = None
                found += (
                    known.get(pair, 0.0) < epsilon
                )  # one that is asked for is taken for unhelpful until it is known
        if not asked:
            return known
        known.update(measure(sorted(asked)))


def judged(row: Mapping[str, Any], gains: Mapping[PairKey, float], epsilon: float) -> dict[str, Any]:
    """A row of ``negatives`` after verification: rows that were not kept before stay as they are."""
    if not row["kept"]:
        return dict(row)
    gain = gains.get((row["root"], row["chunk"]))
    reason = NOT_VERIFIED if gain is None else HELPFUL if gain >= epsilon else None
    return {**row, "max_gain": gain, "kept": reason is None, "reason": reason}


@dataclass(slots=True, init=False)
class _Judge:
    """Measures largest gains of pairs with the policy of the inputs."""

    policy: ReadyPolicy
    passages: Passages
    separator: tuple[int, ...]
    before: dict[int, list[tuple[int, float]]]
    """Root → (t, entropy in nats) of its selected positions."""

    def __init__(self, home: Home, inputs: NegativeVerificationInputs) -> None:
        self.policy = policy_for(inputs.policy)
        corpus = corpus_to_read(home, inputs.corpus)
        self.passages = Passages(
            home, roots=inputs.roots, chunks=corpus.chunks, documents=corpus.documents, tokenizer=self.policy.tokenizer
        )
        self.separator = separator_ids(self.policy.tokenizer, inputs.separator)
        self.before = {}
        positions = read_table(home.path, inputs.positions, ["root", "t", "entropy"]).sort("root", "t")
        for root, t, entropy in positions.iter_rows():
            self.before.setdefault(root, []).append((t, entropy))

    def gains(self, pairs: Sequence[PairKey]) -> dict[PairKey, float]:
        """Largest gain of each pair over all selected positions of its root, rounded to float32 as it is stored."""
        contexts = [self._context(root, chunk) for root, chunk in pairs]
        with progress("negatives", total=sum(c.needed for c in contexts), unit="tokens") as advance:
            scores = self.policy.scorer.score(contexts, progress=advance)
        found: dict[PairKey, float] = {}
        for (root, chunk), score in zip(pairs, scores, strict=True):
            gains = [
                relative_gain(entropy, after)
                for (_, entropy), after in zip(self.before[root], score.entropy.tolist(), strict=True)
            ]
            found[root, chunk] = float(np.float32(max(gains)))
        return found

    def _context(self, root: int, chunk: int) -> Context:
        if root not in self.before:
            raise IntegrityError(
                f"root {root} has negatives and no position in its shard.", hint="Run the same command again."
            )
        tokens, front = self.passages.root(root).ids, self.passages.chunk_ids(chunk)
        ids = prefixed(self.policy.bos, front, self.separator, tokens)
        if len(ids) > self.policy.context:
            raise ConfigError(
                f"root {root} ({len(tokens)} tokens) with negative {chunk} ({len(front)}) needs {len(ids)} tokens,"
                f" the policy's context is {self.policy.context}.",
                hint="Lower roots.root_tokens or chunking.max_tokens.",
            )
        offset = len(ids) - len(tokens)
        return Context(ids, [offset + t for t, _ in self.before[root]])


def negative_figures(negatives: pl.DataFrame) -> dict[str, float]:
    """How many negatives were verified, how many of them helped, and by how much; empty when none was verified."""
    pairs = negatives.filter(pl.col("max_gain").is_not_null()).unique(["root", "chunk"])
    if not len(pairs):
        return {}
    gains = pairs["max_gain"].cast(pl.Float64)
    helpful = (pairs["reason"] == HELPFUL).fill_null(False)
    return {
        "negatives_verified": float(len(pairs)),
        "negatives_helpful_share": float(helpful.sum()) / len(pairs),
        "negatives_mean_max_gain": float(np.mean(gains.to_numpy())),
        "negatives_not_verified": float((negatives["reason"] == NOT_VERIFIED).fill_null(False).sum()),
    }
