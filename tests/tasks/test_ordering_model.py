"""What is known before a pass, by reading the texts slowly; the fit, by its own optimum; the curves, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.schemas import CANDIDATES, ORDERING, POSITIONS
from tasks.measurements.yield_curves import yield_arms
from tasks.screening import ordered_verification, yield_model
from tasks.screening.evidence import COMMON, FEATURES, LONGEST, WINDOW, Evidence
from tasks.screening.ordered_verification import expectations, learned_model
from tasks.screening.yield_model import PENALTY, PRIOR, YieldModel, fit_yield

TEXTS = st.lists(st.integers(0, 4), min_size=1, max_size=24)


def stands_in(run: list[int], chunk: list[int]) -> list[int]:
    """Places behind every occurrence of a run."""
    return [n + len(run) for n in range(len(chunk) - len(run) + 1) if chunk[n : n + len(run)] == run]


def longest(text: list[int], end: int, chunk: list[int]) -> list[int]:
    """The longest run that ends before ``text[end]`` and stands in the chunk."""
    runs = [text[end - length : end] for length in range(min(LONGEST, end) + 1)]
    return max((run for run in runs if not run or stands_in(run, chunk)), key=len)


def literal(
    root: list[int], t: int, chunk: list[int], chunks: list[list[int]], row: dict[str, Any], spot: dict[str, Any]
) -> list[float]:
    before, through = longest(root, t, chunk), longest(root, t + 1, chunk)
    followers = [chunk[end] for end in stands_in(before, chunk) if end < len(chunk)] if before else []

    def share(tokens: set[int]) -> float:
        weight = {
            token: math.log((len(chunks) + 1) / (sum(token in other for other in chunks) + 1)) + COMMON
            for token in tokens
        }
        there = sum(value for token, value in weight.items() if token in chunk)
        return there / sum(weight.values()) if weight else 0.0

    around = [n for n in range(len(root)) if abs(n - t) <= WINDOW]
    return [
        math.log(1 + row["rank"]),
        row["score"],
        (spot["entropy"] - spot["mean"]) / spot["std"] if spot["std"] else 0.0,
        spot["entropy"],
        math.log(len(chunk)),
        float(t > 0 and any(chunk[n : n + 2] == root[t - 1 : t + 1] for n in range(len(chunk) - 1))),
        len(before),
        len(through),
        float(len(set(followers)) == 1),
        followers.count(root[t]) / len(followers) if followers else 0.0,
        share({root[n] for n in around}),
        share({root[n] for n in around if n < t}),
    ]


def frame(schema: Any, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=pl.from_arrow(schema.arrow.empty_table()).schema)


@given(roots=st.lists(TEXTS, min_size=1, max_size=3), chunks=st.lists(TEXTS, min_size=1, max_size=4), data=st.data())
@settings(max_examples=60, deadline=None)
def test_evidence_is_what_a_reader_finds(roots: list[list[int]], chunks: list[list[int]], data: st.DataObject) -> None:
    spots: dict[tuple[int, int], dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for root, text in enumerate(roots):
        for t in sorted(data.draw(st.sets(st.integers(0, len(text) - 1), max_size=3))):
            std = data.draw(st.sampled_from([0.0, 0.5, 2.0]))
            spot = {"root": root, "t": t, "token_id": text[t], "entropy": 3.5, "nll": 1.0, "mean": 1.5, "std": std}
            spots[root, t] = spot | {"threshold": 2.5, "query": "q"}
            for rank, chunk in enumerate(data.draw(st.permutations(range(len(chunks))))):
                reason = data.draw(st.sampled_from([None, None, None, "copy"]))
                row = {"root": root, "t": t, "chunk": chunk, "rank": rank, "score": 0.5 - rank / 8, "excluded": reason}
                rows.append(row)
    evidence = Evidence(roots.__getitem__, chunks.__getitem__)
    pairs, found = evidence.features(frame(CANDIDATES, rows), frame(POSITIONS, list(spots.values())))
    open_rows = sorted((r for r in rows if r["excluded"] is None), key=lambda r: (r["root"], r["chunk"], r["t"]))
    assert pairs.rows() == [(r["root"], r["chunk"], r["t"], r["rank"]) for r in open_rows]
    assert found.shape == (len(open_rows), len(FEATURES))
    for row, features in zip(open_rows, found, strict=True):
        own = sorted({r["chunk"] for r in open_rows if r["root"] == row["root"]})
        spot = spots[row["root"], row["t"]]
        expected = literal(roots[row["root"]], row["t"], chunks[row["chunk"]], [chunks[c] for c in own], row, spot)
        for name, value, wanted in zip(FEATURES, features, expected, strict=True):
            assert value == pytest.approx(wanted, abs=1e-6), name


def verdicts(seed: int, pairs: int = 300) -> tuple[Any, Any]:
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(pairs, len(FEATURES))) * draw.uniform(0.1, 5, len(FEATURES)) + 3
    features[:, 4] = 2.0  # a feature that never differs
    return features, draw.random(pairs) < 1 / (1 + np.exp(4 - features[:, 0]))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_fit_is_the_optimum_of_the_penalised_likelihood(seed: int) -> None:
    features, kept = verdicts(seed)
    model = fit_yield(features, kept)
    p = model.probabilities(features)
    standard = (features - model.mean) / model.scale
    gradient = standard.T @ (kept - p) - PENALTY * (model.weights - PRIOR)
    assert np.abs(gradient).max() < 1e-4
    assert abs((kept - p).sum()) < 1e-3, "as many are expected as were kept"
    assert model.weights[4] == 0.0
    again = YieldModel.of_rows(frame(ORDERING, model.rows()))
    assert np.array_equal(again.probabilities(features), p)
    assert fit_yield(features, kept).rows() == model.rows()


def test_verdicts_that_a_feature_separates_are_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yield_model, "PENALTY", 1e-6)  # next to no prior: a whole Newton step leaps off
    features = np.zeros((40, len(FEATURES)))
    features[:, 0] = np.arange(40)
    model = fit_yield(features, np.arange(40) >= 37)
    p = model.probabilities(features)
    assert np.isfinite(p).all()
    assert (p[37:] > 0.9).all()
    assert (p[:37] < 0.1).all()


@pytest.mark.parametrize("kept", [[], [False] * 5, [True] * 5])
def test_where_there_is_nothing_to_learn_from_what_is_shown_decides(kept: list[bool]) -> None:
    features = np.random.default_rng(0).normal(size=(len(kept), len(FEATURES)))
    model = fit_yield(features, np.array(kept, np.bool_))
    assert np.array_equal(model.weights, PRIOR)
    shown = np.zeros((2, len(FEATURES)))
    shown[1, list(FEATURES).index("literal")] = 1.0
    less, more = model.probabilities(shown)
    assert 0 < less < more < 1


def test_a_table_of_other_features_is_refused() -> None:
    rows = fit_yield(*verdicts(1)).rows()
    rows[3]["feature"] = "moon"
    with pytest.raises(ValueError, match="moon"):
        YieldModel.of_rows(frame(ORDERING, rows))


def test_expectations_are_sums_over_the_positions_that_a_pass_serves() -> None:
    text, chunks = [1, 2, 3, 4, 1, 2], [[1, 2, 9], [7, 7]]
    places = [{"root": 0, "t": t, "token_id": 0, "entropy": 3.0, "nll": 1.0, "mean": 1.0, "std": 1.0} for t in (2, 5)]
    positions = frame(POSITIONS, [place | {"threshold": 2.0, "query": "q"} for place in places])
    rows = [{"root": 0, "t": t, "chunk": c, "rank": c, "score": 0.5, "excluded": None} for t in (2, 5) for c in (0, 1)]
    candidates = frame(CANDIDATES, rows[:3])  # chunk 1 was found by the first position alone
    evidence = Evidence(lambda _: text, chunks.__getitem__)
    judged = candidates.select("root", "t", "chunk", kept=pl.col("chunk") == 0)
    model = learned_model(evidence, [(positions, candidates, judged)])
    pairs, features = evidence.features(candidates, positions)
    p = dict(zip(pairs.select("chunk", "t").rows(), model.probabilities(features).tolist(), strict=True))
    found = expectations(evidence, model, candidates, positions)
    assert found == {(0, 0): round(p[0, 2] + p[0, 5], 9), (0, 1): round(p[1, 2], 9)}


def test_a_sample_of_the_pairs_is_the_same_whenever_it_is_drawn() -> None:
    grid = pl.DataFrame({"root": list(range(40)) * 50, "t": [n % 61 for n in range(2000)], "chunk": list(range(2000))})
    chosen = ordered_verification._sampled(grid, 0.3)
    assert 500 < chosen.sum() < 700
    assert np.array_equal(ordered_verification._sampled(grid[1000:], 0.3), chosen[1000:])
    assert ordered_verification._sampled(grid, 1.5).all()


def test_the_curves_are_those_of_a_hand() -> None:
    # root, chunk, rank, tokens, density, kept, literal, gain: five positives among ten passes
    rows = [
        (0, 0, 0, 10, 0.9, 2, 2, 1.6), (0, 1, 1, 10, 0.8, 0, 0, 0.0), (0, 2, 2, 10, 0.1, 1, 0, 0.5),
        (0, 3, 3, 10, 0.0, 0, 0, 0.0), (0, 4, 4, 10, 0.0, 0, 0, 0.0), (1, 0, 0, 20, 0.2, 0, 0, 0.0),
        (1, 1, 1, 20, 0.7, 1, 1, 0.9), (1, 2, 2, 20, 0.6, 1, 1, 0.8), (1, 3, 3, 20, 0.5, 1, 0, 0.6),
        (1, 4, 4, 20, 0.0, 0, 0, 0.0),
    ]  # fmt: skip
    names = ("root", "chunk", "rank", "tokens", "density", "kept", "literal", "gain")
    passes = pl.DataFrame(rows, schema=names, orient="row")
    arms = {(arm.ordering, arm.budget): arm.points[1] for arm in yield_arms(passes)}
    assert arms["exhaustive", "none"].passes == pytest.approx(0.8)
    assert arms["exhaustive", "none"].literal_share == pytest.approx(4 / 6)
    best = arms["expected-yield", "floor"]  # 0.9, 0.8, 0.7, 0.6, 0.5: four of five positives
    assert (best.positives, best.passes, best.tokens) == pytest.approx((0.8, 0.5, 80 / 150))
    assert (best.literal_share, best.mean_gain) == pytest.approx((4 / 5, 3.9 / 5))
    assert best.of_exhaustive == pytest.approx(0.5 / 0.8)
    assert best.density == pytest.approx(500.0)
    ranked = arms["rank", "top_k"]  # ranks 0, 1, 2 of both roots: positives 1, 1, 2
    assert (ranked.positives, ranked.passes, ranked.mean_gain) == pytest.approx((0.8, 0.6, 3.8 / 5))
    each = arms["expected-yield", "passes_per_root"]  # first passes, second ones, third ones
    assert (each.positives, each.passes) == pytest.approx((0.8, 0.5))
