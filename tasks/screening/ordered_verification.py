"""Verification within a budget: candidates in an order, until each root has enough (docs/method.md 2.5, ours).

The round's first shards are verified exhaustively, and where the order is that of the expected yield, a model is fitted
on their verdicts (step ``ordering``); every later shard is verified in that order (step ``ordered-verification``).
Which shards are first is their number, not the time they ran, so a round is the same on every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.policy import load_tokenizer
from storage.checkpoints import work_uri
from storage.corpora import corpus_to_read
from storage.home import Home
from storage.refs import Ref
from storage.schemas import ORDERING, PASSES, VERDICTS
from storage.tables import read_table, write_table
from tasks.checkpointed import step
from tasks.progress import track
from tasks.screening.evidence import FEATURES, Evidence
from tasks.screening.ordering import Pass, PassKey, expected_of, walk
from tasks.screening.passages import Passages
from tasks.screening.verification import Judge, Pair, VerificationConfig, VerificationInputs, pairs_of
from tasks.screening.yield_model import YieldModel, fit_yield

PAIR = ["root", "t", "chunk"]


class LearningConfig(BaseModel):
    """How much the model is fitted on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    most_pairs: int = Field(400_000, ge=1, description="Of more pairs a sample by hash is taken: memory is bounded.")


class LearningInputs(BaseModel):
    """The first shards of a round with their verdicts, and whose tokens are compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    positions: tuple[Ref, ...]
    candidates: tuple[Ref, ...]
    verdicts: tuple[Ref, ...]
    roots: Ref
    corpus: str
    tokenizer: str = Field(description="Digest of the tokenizer's files.")
    tokenizer_folder: str = Field(exclude=True)


class OrderedInputs(VerificationInputs):
    """A shard to be verified in order, and the model behind the expected yield (None: rank order)."""

    model: Ref | None


@step("ordering", code_version=1)
def learn_ordering(home: Home, inputs: LearningInputs, config: LearningConfig) -> dict[str, Ref]:
    """Fits the model of the expected yield: table ``ordering``."""
    key = learn_ordering.key(inputs, config)
    corpus = corpus_to_read(home, inputs.corpus)
    tokenizer = load_tokenizer(Path(inputs.tokenizer_folder))
    passages = Passages(home, roots=inputs.roots, chunks=corpus.chunks, documents=corpus.documents, tokenizer=tokenizer)
    share = config.most_pairs / max(1, sum(ref.rows for ref in inputs.verdicts))
    refs = list(zip(inputs.positions, inputs.candidates, inputs.verdicts, strict=True))
    shards = (
        tuple(read_table(home.path, ref) for ref in shard)
        for shard in track(refs, len(refs), "learning from verdicts", "shards")
    )
    model = learned_model(evidence_of(passages), shards, share)
    passages.close()
    return {"ordering": write_table(home.path, work_uri(key, "ordering"), ORDERING, model.rows())}


@step("ordered-verification", code_version=5, scores=True)
def verify_in_order(home: Home, inputs: OrderedInputs, config: VerificationConfig) -> dict[str, Ref]:
    """Verifies a shard within the budget: tables ``verdicts`` and ``passes``, what was left out included."""
    key = verify_in_order.key(inputs, config)
    candidates = read_table(home.path, inputs.candidates)
    verdicts: list[dict[str, Any]] = []
    passes: list[dict[str, Any]] = []
    pairs = pairs_of(candidates)
    if pairs:
        judge = Judge(home, inputs, config)
        expected = None
        if inputs.model is not None:
            model = YieldModel.of_rows(read_table(home.path, inputs.model))
            expected = expectations(
                evidence_of(judge.passages), model, candidates, read_table(home.path, inputs.positions)
            )

        def measure(wave: Sequence[Pass]) -> set[PassKey]:
            rows = judge.verdicts([Pair(one.root, one.chunk, one.positions) for one in wave])
            verdicts.extend(rows)
            return {(row["root"], row["chunk"]) for row in rows if row["kept"]}

        for done in walk(possible_passes(candidates, pairs, judge.tokens, expected), config, measure):
            passes.extend(done.rows())
        judge.close()
    verdicts.sort(key=lambda row: (row["root"], row["t"], row["chunk"]))
    return {
        "verdicts": write_table(home.path, work_uri(key, "verdicts"), VERDICTS, verdicts),
        "passes": write_table(home.path, work_uri(key, "passes"), PASSES, passes),
    }


def learned_model(evidence: Evidence, shards: Iterable[tuple[pl.DataFrame, ...]], share: float = 1.0) -> YieldModel:
    """The model of whole shards (positions, candidates, verdicts), of all their pairs or a share of them by hash."""
    features, kept = [np.zeros((0, len(FEATURES)))], [np.zeros(0, np.bool_)]
    for positions, candidates, verdicts in shards:
        pairs, found = evidence.features(candidates, positions)
        answers = pairs.join(verdicts.select(*PAIR, "kept"), on=PAIR, how="left", maintain_order="left")["kept"]
        chosen = _sampled(pairs, share)
        features.append(found[chosen])
        kept.append(answers.to_numpy().astype(np.bool_)[chosen])
    return fit_yield(np.concatenate(features), np.concatenate(kept))


def possible_passes(
    candidates: pl.DataFrame,
    pairs: Sequence[Pair],
    tokens: Callable[[Pair], int],
    expected: dict[PassKey, float] | None,
) -> list[Pass]:
    """The passes of a shard that could be made, with what decides their order."""
    eligible = candidates.filter(pl.col("excluded").is_null())
    best = eligible.group_by("root", "chunk").agg(pl.col("rank").min())
    ranks = {(root, chunk): rank for root, chunk, rank in best.iter_rows()}
    return [
        Pass(
            root=pair.root,
            chunk=pair.chunk,
            positions=pair.positions,
            rank=ranks[pair.root, pair.chunk],
            tokens=tokens(pair),
            expected=None if expected is None else expected[pair.root, pair.chunk],
        )
        for pair in pairs
    ]


def expectations(
    evidence: Evidence, model: YieldModel, candidates: pl.DataFrame, positions: pl.DataFrame
) -> dict[PassKey, float]:
    """Expected positives of every pass over whole roots' candidates."""
    pairs, features = evidence.features(candidates, positions)
    found: dict[PassKey, list[float]] = {}
    for (root, chunk), p in zip(pairs.select("root", "chunk").iter_rows(), model.probabilities(features), strict=True):
        found.setdefault((root, chunk), []).append(float(p))
    return expected_of(found)


def evidence_of(passages: Passages) -> Evidence:
    """Evidence from the tokens of a corpus's chunks and a round's roots."""
    return Evidence(lambda root: passages.root(root).ids, passages.chunk_ids)


def _sampled(pairs: pl.DataFrame, share: float) -> NDArray[np.bool_]:
    """Which pairs are learned from: all, or a share of them by a hash of their numbers."""
    if share >= 1:
        return np.ones(len(pairs), np.bool_)
    root, t, chunk = (pairs[name].to_numpy().astype(np.uint64) for name in PAIR)
    mixed = (root * np.uint64(0x9E3779B97F4A7C15)) ^ (t * np.uint64(0xC2B2AE3D27D4EB4F)) ^ (chunk << np.uint64(17))
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.asarray((mixed >> np.uint64(11)).astype(np.float64) / 2.0**53 < share)
