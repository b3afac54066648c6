"""What an order of verification would have found, and what it would have cost, from the verdicts of an exhaustive round
(docs/method.md 2.5, ours).

The first shards teach the model of the expected yield, as in a round with a budget; the curves are over the passes of
the other train shards. A positive is a chunk that is kept at one position of its root at least.

    exhaustive      any order: a share of the positives takes that share of the passes
    rank            all roots up to the same rank
    expected-yield  all roots down to the same yield (``floor``), or each root its first passes (``passes_per_root``)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.policy import load_tokenizer
from storage.errors import InputError
from storage.home import Home
from storage.policies import policy_folder
from storage.refs import Ref
from storage.tables import read_table
from tasks.measurements.measurement import MeasuredVersion
from tasks.resources import bos_ids
from tasks.screening.ordered_verification import (
    evidence_of,
    expectations,
    learned_model,
    possible_passes,
)
from tasks.screening.ordering import PER_TOKENS, learning_shards
from tasks.screening.verification import Pair, pairs_of, separator_ids

Frames = tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]
SHARES = (0.5, 0.8, 0.9)
"""Shares of the positives at which a curve is read."""


class YieldConfig(BaseModel):
    """How a round's verdicts are divided."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_share: float = Field(
        0.125, gt=0, lt=1, description="Share of the shards, the first, that are learned from."
    )


class YieldPoint(BaseModel):
    """A curve where so many of the positives are found; means are over the kept pairs up to there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    positives: float = Field(description="Share of the positives.")
    passes: float = Field(description="Share of the passes.")
    tokens: float = Field(description="Share of the tokens that all passes read.")
    of_exhaustive: float = Field(description="Passes, as a share of those that any order takes for as many positives.")
    literal_share: float = Field(description="Kept pairs with the wanted bigram in the chunk, of all kept pairs.")
    mean_gain: float = Field(description="Mean gain of the kept pairs.")
    density: float = Field(description="Expected positives per 1,000 tokens of the last pass: the floor to set.")


class YieldArm(BaseModel):
    """One order under one kind of budget."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ordering: Literal["exhaustive", "rank", "expected-yield"]
    budget: str = Field(description="Option that ends it, or none.")
    points: tuple[YieldPoint, ...]


class YieldReport(BaseModel):
    """The curves of one round."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    round: int
    learned_pairs: int
    learned_kept: int
    learned_passes: int
    learned_positives: int
    passes: int
    positives: int
    arms: tuple[YieldArm, ...]


def yield_report(home: Home, version: str, config: YieldConfig = YieldConfig()) -> YieldReport:
    """Reads the curves off a published round.

    Raises ``InputError`` for a round that verified nothing, or not everything, or has one train shard only.
    """
    measured = MeasuredVersion.open(home, version)
    learned, rest = _divided(measured, config.learning_share)
    folder = policy_folder(home, measured.manifest.policy)
    tokenizer = load_tokenizer(folder)
    passages = measured.passages(tokenizer)
    front = len(bos_ids(tokenizer)) + len(separator_ids(tokenizer, measured.verification.separator))

    def tokens(pair: Pair) -> int:
        return front + len(passages.chunk_ids(pair.chunk)) + max(pair.positions)

    evidence = evidence_of(passages)
    taught = [_frames(home, refs) for refs in learned]
    model = learned_model(evidence, taught)
    rows: list[dict[str, Any]] = []
    for positions, candidates, verdicts in (_frames(home, refs) for refs in rest):
        expected = expectations(evidence, model, candidates, positions)
        found = _kept(verdicts)
        for one in possible_passes(candidates, pairs_of(candidates), tokens, expected):
            rows.append(
                {"root": one.root, "chunk": one.chunk, "rank": one.rank, "tokens": one.tokens}
                | {"density": (one.expected or 0.0) / one.tokens}
                | found.get(one.key, {"kept": 0, "literal": 0, "gain": 0.0})
            )
    passages.close()
    passes = pl.DataFrame(rows).sort("root", "chunk")
    return YieldReport(
        version=measured.version,
        round=measured.manifest.round,
        learned_pairs=sum(len(verdicts) for _, _, verdicts in taught),
        learned_kept=sum(int(verdicts["kept"].sum()) for _, _, verdicts in taught),
        learned_passes=sum(verdicts.select("root", "chunk").n_unique() for _, _, verdicts in taught),
        learned_positives=sum(len(_kept(verdicts)) for _, _, verdicts in taught),
        passes=len(passes),
        positives=int((passes["kept"] > 0).sum()),
        arms=tuple(yield_arms(passes)),
    )


def yield_arms(passes: pl.DataFrame) -> Iterator[YieldArm]:
    """The curves of passes with columns root, chunk, rank, tokens, density (expected positives per token), kept
    (pairs), literal (of these) and gain (their sum).
    """
    whole = _points(passes)
    last = whole(len(passes))
    yield YieldArm(
        ordering="exhaustive",
        budget="none",
        points=tuple(
            last.model_copy(update={"positives": share, "passes": share, "tokens": share}) for share in SHARES
        ),
    )
    by_yield = passes.sort("density", "rank", "root", "chunk", descending=[True, False, False, False])
    orders: Mapping[tuple[Literal["rank", "expected-yield"], str], pl.DataFrame] = {
        ("rank", "top_k"): passes.sort("rank", "root", "chunk"),
        ("rank", "passes_per_root"): _each_root_first(passes.sort("rank", "chunk")),
        ("expected-yield", "floor"): by_yield,
        ("expected-yield", "passes_per_root"): _each_root_first(by_yield),
    }
    for (ordering, budget), ordered in orders.items():
        point = _points(ordered)
        found = (ordered["kept"] > 0).cast(pl.Int64).cum_sum().to_numpy()
        needed = [int(np.searchsorted(found, share * found[-1] - 1e-9)) + 1 for share in SHARES] if found[-1] else []
        yield YieldArm(ordering=ordering, budget=budget, points=tuple(point(count) for count in needed))


def _points(ordered: pl.DataFrame) -> Any:
    """What is found by the first passes of an order, by their number."""
    sums: dict[str, NDArray[np.float64]] = {
        name: np.concatenate([[0.0], ordered[name].cast(pl.Float64).to_numpy().cumsum()])
        for name in ("tokens", "kept", "literal", "gain")
    }
    found = np.concatenate([[0.0], (ordered["kept"] > 0).cast(pl.Float64).to_numpy().cumsum()])

    def point(count: int) -> YieldPoint:
        positives, passes = found[count] / max(1.0, found[-1]), count / max(1, len(ordered))
        kept = max(1.0, float(sums["kept"][count]))
        return YieldPoint(
            positives=positives,
            passes=passes,
            tokens=sums["tokens"][count] / max(1.0, sums["tokens"][-1]),
            of_exhaustive=passes / positives if positives else 0.0,
            literal_share=sums["literal"][count] / kept,
            mean_gain=sums["gain"][count] / kept,
            density=float(ordered["density"][count - 1]) * PER_TOKENS if count else 0.0,
        )

    return point


def _each_root_first(ordered: pl.DataFrame) -> pl.DataFrame:
    """First passes of all roots, then second ones, and so on."""
    return ordered.with_columns(place=pl.int_range(pl.len()).over("root")).sort("place", "root", maintain_order=True)


def _kept(verdicts: pl.DataFrame) -> dict[tuple[int, int], dict[str, Any]]:
    kept = verdicts.filter("kept").group_by("root", "chunk")
    found = kept.agg(pl.len().alias("kept"), pl.col("literal").sum(), pl.col("gain").cast(pl.Float64).sum())
    return {(row.pop("root"), row.pop("chunk")): row for row in found.to_dicts()}


def _divided(measured: MeasuredVersion, share: float) -> tuple[Sequence[Sequence[Ref]], Sequence[Sequence[Ref]]]:
    config = measured.manifest.config
    if not measured.refs("verdicts") or measured.refs("passes"):
        raise InputError(
            f"round {measured.manifest.round} ({measured.version[:12]}) did not verify every candidate.",
            hint="Measure a round of build.verification.ordering exhaustive.",
        )
    train = -(-int(config["roots"]["roots_per_round"]) // int(config["roots_per_shard"]))
    tables = [measured.refs(name)[:train] for name in ("positions", "candidates", "verdicts")]
    shards = list(zip(*tables, strict=True))
    learned = learning_shards(share, len(shards))
    if learned == len(shards):
        raise InputError(
            f"round {measured.manifest.round} has {len(shards)} train shards: none is left to measure on.",
            hint="Lower build.roots_per_shard.",
        )
    return shards[:learned], shards[learned:]


def _frames(home: Home, refs: Sequence[Ref]) -> Frames:
    positions, candidates, verdicts = (read_table(home.path, ref) for ref in refs)
    return positions, candidates, verdicts
