"""Verified negatives against one forward pass per position and chunk, and the rules of the walk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from storage.errors import ConfigError, IntegrityError
from storage.home import Home
from storage.schemas import NEGATIVES, POSITIONS
from storage.tables import read_table, write_table
from tasks.resources import release
from tasks.screening.negative_verification import (
    NegativeVerificationConfig,
    NegativeVerificationInputs,
    PairKey,
    judged,
    negative_figures,
    verified_gains,
    verify_negatives,
    walks_of,
)
from tests.published_world import PublishedWorld, publish_world, sharp_world
from tests.world import World

EPSILON = 0.1
TOLERANCE = 1e-4


@pytest.fixture
def published(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedWorld:
    return publish_world(sharp_world(home, tmp_path, monkeypatch))


def _inputs(published: PublishedWorld, **changes: Any) -> NegativeVerificationInputs:
    values = {
        "negatives": published.refs["negatives"][0],
        "positions": published.refs["positions"][0],
        "roots": published.refs["roots"][0],
        "corpus": published.world.corpus.digest,
        "policy": published.policy,
        "separator": "\n\n",
        "negatives_per_positive": 1,
    }
    return NegativeVerificationInputs(**(values | changes))


def _verified(published: PublishedWorld, config: NegativeVerificationConfig, **changes: Any) -> list[dict[str, Any]]:
    home = published.world.home
    rows = read_table(home.path, verify_negatives.run(home, _inputs(published, **changes), config)["negatives"])
    release()
    return rows.to_dicts()


class Literal:
    """Largest gain of a chunk over a root's positions, each from a pass of its own."""

    def __init__(self, world: World, published: PublishedWorld) -> None:
        self.world = world
        self.model: Any = AutoModelForCausalLM.from_pretrained(world.folder).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(world.folder)
        self.roots = published.rows("roots")
        self.positions = published.rows("positions")
        self.known: dict[PairKey, float] = {}
        self.before: dict[tuple[int, int], float] = {}

    @torch.no_grad()
    def entropy(self, ids: list[int], place: int) -> float:
        p = torch.softmax(self.model(torch.tensor([ids[:place]])).logits[0, -1].double(), -1).tolist()
        return -sum(x * math.log(x) for x in p if x > 0)

    def max_gain(self, root: int, chunk: int) -> float:
        if (root, chunk) not in self.known:
            front = self.tokenizer(self.world.chunks[chunk]["text"], add_special_tokens=False)["input_ids"]
            front = front + self.tokenizer("\n\n", add_special_tokens=False)["input_ids"]
            ids = self.roots[root]["input_ids"]
            gains = []
            for row in self.positions:
                if row["root"] == root:
                    spot = (root, row["t"])
                    if spot not in self.before:
                        self.before[spot] = self.entropy(ids, row["t"])
                    before = self.before[spot]
                    gains.append((before - self.entropy(front + ids, len(front) + row["t"])) / before)
            self.known[root, chunk] = max(gains)
        return self.known[root, chunk]


def test_verified_negatives_are_the_literal_walks(published: PublishedWorld) -> None:
    literal = Literal(published.world, published)
    before = published.rows("negatives")
    after = _verified(published, NegativeVerificationConfig(enabled=True, epsilon=EPSILON, spares=1))
    reached: set[PairKey] = set()
    walks: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in sorted(before, key=lambda row: row["rank"]):
        if row["kept"]:
            walks.setdefault((row["root"], row["seed_chunk"]), []).append(row)
    for rows in walks.values():
        unhelpful = 0
        for row in rows:
            if unhelpful == 2:
                break
            gain = literal.max_gain(row["root"], row["chunk"])
            assert abs(gain - EPSILON) > TOLERANCE, "the world has a pair on the border; change its seed"
            reached.add((row["root"], row["chunk"]))
            unhelpful += gain < EPSILON
    assert len(after) == len(before)
    reasons = set()
    for was, now in zip(before, after, strict=True):
        kept_out = was | {"kept": False}
        if not was["kept"]:
            assert now == was
        elif (was["root"], was["chunk"]) not in reached:
            assert now == kept_out | {"reason": "not-verified"}
        else:
            gain = literal.max_gain(was["root"], was["chunk"])
            assert now["max_gain"] == pytest.approx(gain, abs=TOLERANCE)
            assert (now["kept"], now["reason"]) == ((True, None) if gain < EPSILON else (False, "helpful"))
        reasons.add(now["reason"])
    assert {None, "helpful", "not-verified"} <= reasons, "a rule was never exercised"


def test_figures_count_pairs_once(published: PublishedWorld) -> None:
    after = _verified(published, NegativeVerificationConfig(spares=2))
    pairs = {(row["root"], row["chunk"]): row for row in after if row["max_gain"] is not None}
    figures = negative_figures(pl.DataFrame(after))
    assert figures["negatives_verified"] == len(pairs)
    helpful = sum(row["reason"] == "helpful" for row in pairs.values())
    assert figures["negatives_helpful_share"] == pytest.approx(helpful / len(pairs))
    gains = [row["max_gain"] for row in pairs.values()]
    assert figures["negatives_mean_max_gain"] == pytest.approx(sum(gains) / len(gains))
    assert figures["negatives_not_verified"] == sum(row["reason"] == "not-verified" for row in after)
    assert negative_figures(pl.DataFrame(published.rows("negatives"), schema_overrides={"max_gain": pl.Float32})) == {}


def test_nothing_wanted_is_nothing_read(published: PublishedWorld) -> None:
    after = _verified(published, NegativeVerificationConfig(spares=0), negatives_per_positive=0)
    assert not any(row["kept"] or row["max_gain"] is not None for row in after)


def test_positions_of_another_shard_are_refused(published: PublishedWorld) -> None:
    inputs = _inputs(published, positions=published.refs["positions"][1])
    with pytest.raises(IntegrityError, match="negatives and no position"):
        verify_negatives.run(published.world.home, inputs, NegativeVerificationConfig())
    release()


def test_a_negative_that_does_not_fit_is_named(published: PublishedWorld) -> None:
    inputs = _inputs(published, separator="the value of each step " * 12)
    with pytest.raises(ConfigError, match=r"negative \d+ \(\d+\) needs \d+ tokens, the policy's context is 110"):
        verify_negatives.run(published.world.home, inputs, NegativeVerificationConfig())
    release()


GAINS = st.dictionaries(st.integers(0, 7), st.sampled_from([-0.5, 0.0, 0.05, 0.1, 0.3]), min_size=8, max_size=8)
WALKS = st.lists(st.lists(st.integers(0, 7), unique=True, max_size=8), max_size=5)


@given(walks=WALKS, gains=GAINS, wanted=st.integers(0, 4))
def test_waves_find_what_one_walk_after_the_other_finds(
    walks: list[list[int]], gains: dict[int, float], wanted: int
) -> None:
    measured: list[PairKey] = []

    def measure(pairs: Sequence[PairKey]) -> dict[PairKey, float]:
        measured.extend(pairs)
        return {pair: gains[pair[1]] for pair in pairs}

    found = verified_gains([[(1, chunk) for chunk in walk] for walk in walks], wanted, EPSILON, measure)
    expected = set()
    for walk in walks:
        unhelpful = 0
        for chunk in walk:
            if unhelpful < wanted:
                expected.add(chunk)
                unhelpful += gains[chunk] < EPSILON
    assert {chunk for _, chunk in found} == expected
    assert len(measured) == len(set(measured)) == len(expected), "a pair was read twice"


def test_an_empty_shard_stays_empty(home: Home, published: PublishedWorld) -> None:
    nothing = write_table(home.path, "work/none.parquet", NEGATIVES, [])
    spots = write_table(home.path, "work/no-positions.parquet", POSITIONS, [])
    assert _verified(published, NegativeVerificationConfig(), negatives=nothing, positions=spots) == []


def test_a_row_that_was_refused_stays_refused() -> None:
    row = {"root": 1, "seed_chunk": 2, "chunk": 3, "rank": 0, "kept": False, "reason": "copy", "max_gain": None}
    assert judged(row, {(1, 3): 0.0}, EPSILON) == row
    assert walks_of([row]) == []
