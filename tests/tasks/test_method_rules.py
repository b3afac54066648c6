"""Rules that hold for every input, each against its plain statement: how many tokens can be uncertain, what may stand
before a root, once per root, and what is no hard negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage.hits import Hit, ordered_search
from storage.home import Home
from storage.tables import read_table
from storage.vectors import IndexConfig
from tasks.samples.bundles import bundles_of
from tasks.screening.entropy import EntropyConfig, query_window, select_positions
from tasks.screening.negatives import NegativesConfig, NegativesInputs, find_negatives
from tasks.screening.passages import Passages
from tasks.screening.retrieval import choose_candidates, exclusion
from tasks.screening.verification import is_literal, pairs_of, relative_gain
from tests import literal_method
from tests.literal_method import Chunk, Root
from tests.word_world import WordWorld, make_word_world, negative, verdict, word_tokenizer

RUN = 9
TEXTS = (
    ("alpha beta gamma", "delta epsilon", "alpha beta"),  # the root's document; its root is the first paragraph
    ("a long alpha   beta gamma run", "only alpha bet", "nothing alike here"),
    ("alpha beta", "delta\tepsilon zeta", "only alpha be"),
    ("zeta eta theta", "zeta eta", "eta theta iota"),
)
_numbers = count()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> WordWorld:
    """Twelve short chunks, some of which share runs with the root or with each other."""
    home = Home.open(tmp_path_factory.mktemp("rules") / "home")
    return make_word_world(home, word_tokenizer(()), TEXTS, [(0, 0, 1)])


def literal_world(world: WordWorld) -> tuple[list[Chunk], Root]:
    return [Chunk(row["doc"], row["text"]) for row in world.chunk_rows], Root(0, TEXTS[0][0], ())


@given(entropies=st.lists(st.floats(0, 12, width=32), min_size=1, max_size=200), alpha=st.floats(0.01, 6))
@example(entropies=[5.0, 0, 0, 0, 0], alpha=2.0)  # Cantelli's own worst case, a fifth at exactly mu + 2 sigma
@example(entropies=[5.0, 0, 0, 0, 0], alpha=1.99)
def test_no_more_than_cantellis_share_can_be_uncertain(entropies: list[float], alpha: float) -> None:
    chosen = select_positions(np.array(entropies, np.float32), 0, EntropyConfig(alpha=alpha, min_context=0))
    if chosen.std > 1e-5:
        assert len(chosen.positions) <= len(entropies) / (1 + alpha**2) + 1e-9
    assert all(entropies[t] > chosen.mean for t in chosen.positions)


@given(length=st.integers(1, 60), radius=st.integers(0, 20), data=st.data())
def test_a_query_is_clipped_at_the_borders_only(length: int, radius: int, data: st.DataObject) -> None:
    t = data.draw(st.sampled_from(sorted({0, 1, length // 2, length - 2, length - 1} & set(range(length)))))
    ids = [7 * place % 101 for place in range(length)]
    window = list(query_window(ids, t, radius))
    assert window == literal_method.window(ids, t, radius)
    assert len(window) == 1 + min(radius, t) + min(radius, length - 1 - t)
    assert window[min(radius, t)] == ids[t]


def test_a_candidate_is_excluded_by_exactly_the_rules(world: WordWorld) -> None:
    """Nine characters or more in common with "alpha beta gamma", white space folded, or the root's own document.

    "alpha bet" has nine of them, "alpha be" eight.
    """
    corpus = world.corpus
    passages = Passages(world.home, roots=world.roots, chunks=corpus.chunks, documents=corpus.documents)
    chunks, root = literal_world(world)
    found = [exclusion(passages, 0, chunk, RUN) for chunk in range(len(chunks))]
    assert found == ["root-document"] * 3 + ["copy", "copy", None] + ["copy"] + [None] * 5
    for length in range(1, 20):
        for chunk in range(len(chunks)):
            reasons = literal_method.exclusions(chunks[chunk], root, length)
            reason = exclusion(passages, 0, chunk, length)
            assert reason in reasons if reasons else reason is None
    passages.close()


@given(
    scores=st.lists(st.integers(-3, 3), min_size=12, max_size=12),
    barred=st.sets(st.integers(0, 11)),
    top_k=st.integers(1, 6),
    looked_at=st.integers(1, 12),
)
def test_candidates_are_the_nearest_that_may_be_used(
    scores: list[int], barred: set[int], top_k: int, looked_at: int
) -> None:
    hits = nearest([score / 8 for score in scores], looked_at)
    chosen = choose_candidates(hits, lambda chunk: "barred" if chunk in barred else None, top_k)
    order = sorted(range(12), key=lambda chunk: (-scores[chunk], chunk))[:looked_at]
    usable = [chunk for chunk in order if chunk not in barred][:top_k]
    assert [hit.chunk for _, hit, reason in chosen if reason is None] == usable
    last = order.index(usable[-1]) if len(usable) == top_k else len(order) - 1
    assert [hit.chunk for _, hit, _ in chosen] == order[: last + 1], "a nearer chunk is missing, excluded or not"
    assert [rank for rank, _, _ in chosen] == list(range(len(chosen)))
    assert all((reason is not None) == (hit.chunk in barred) for _, hit, reason in chosen)


def nearest(scores: Sequence[float], top: int) -> list[Hit]:
    """The hits of one query as every engine gives them."""
    answers = ordered_search(
        lambda queries, limit: [sorted(enumerate(scores), key=lambda pair: -pair[1])[:limit]],
        np.zeros((1, 1), np.float32), top, len(scores),
    )  # fmt: skip
    return answers[0]


rows_of_candidates = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 7), st.booleans()),
    max_size=60,
    unique_by=lambda row: row[:3],
)


@given(rows=rows_of_candidates)
def test_a_chunk_is_read_once_per_root_and_judged_wherever_it_was_found(
    rows: list[tuple[int, int, int, bool]],
) -> None:
    frame = pl.DataFrame(
        [{"root": r, "t": t, "chunk": c, "excluded": None if usable else "copy"} for r, t, c, usable in rows],
        schema={"root": pl.Int32, "t": pl.Int32, "chunk": pl.Int32, "excluded": pl.String},
    )
    pairs = pairs_of(frame)
    assert len({(pair.root, pair.chunk) for pair in pairs}) == len(pairs)
    assert sorted((p.root, t, p.chunk) for p in pairs for t in p.positions) == sorted(
        (r, t, c) for r, t, c, usable in rows if usable
    )
    assert all(list(pair.positions) == sorted(set(pair.positions)) for pair in pairs)


@given(rows=rows_of_candidates, data=st.data())
def test_a_positive_enters_once_per_root_with_all_it_helps(
    rows: list[tuple[int, int, int, bool]], data: st.DataObject
) -> None:
    gains = st.sampled_from([0.5, 0.625, 0.75])
    verdicts = [verdict(r, t, c, data.draw(gains) if kept else 0.1, kept=kept) for r, t, c, kept in rows]
    expected = literal_method.once_per_root((r, t, c) for r, t, c, kept in rows if kept)
    negatives = [negative(root, chunk, other, other) for root, chunk in expected for other in (20, 21)]
    schema = {"root": pl.Int32, "chunk": pl.Int32, "kept": pl.Boolean, "t": pl.Int32, "gain": pl.Float64}
    schema |= {"entropy_before": pl.Float64, "entropy_after": pl.Float64}
    near = {"root": pl.Int32, "seed_chunk": pl.Int32, "chunk": pl.Int32, "rank": pl.Int32, "kept": pl.Boolean}
    bundles = list(
        bundles_of(
            range(4),
            pl.DataFrame([{name: row[name] for name in schema} for row in verdicts], schema=schema),
            pl.DataFrame([{name: row[name] for name in near} for row in negatives], schema=near),
        )
    )
    assert [bundle.root for bundle in bundles] == [0, 1, 2, 3]
    found = {(b.root, c.chunk): b.dependencies.t[c.rows.start : c.rows.stop] for b in bundles for c in b.contexts}
    assert found == expected
    assert sum(len(bundle.contexts) for bundle in bundles) == len(expected)
    for bundle in bundles:
        assert [(-c.best_gain, c.chunk) for c in bundle.contexts] == sorted(
            (-c.best_gain, c.chunk) for c in bundle.contexts
        )
        assert all(context.negatives == (20, 21) for context in bundle.contexts)


class Scored:
    """An index whose cosines are written down: ``scores[seed][chunk]``."""

    def __init__(self, scores: Sequence[Sequence[float]]) -> None:
        self.scores = scores

    def vectors_of(self, ids: Sequence[int]) -> NDArray[np.float32]:
        return np.array([[number] for number in ids], np.float32)

    def search(self, queries: NDArray[np.float32], top: int) -> list[list[Hit]]:
        return [nearest(self.scores[int(query[0])], top) for query in queries]


def negatives_of(
    world: WordWorld, positives: set[int], scores: Sequence[Sequence[float]], config: NegativesConfig
) -> list[dict[str, object]]:
    """Rows of negatives of the one root, whose kept verdicts are ``positives``."""
    inputs = NegativesInputs(
        verdicts=world.table("verdicts", [verdict(0, 1, c, 0.5) for c in sorted(positives)], f"{next(_numbers):05d}"),
        roots=world.roots,
        corpus=world.corpus.digest,
        index=IndexConfig(),
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tasks.screening.negatives.index_for", lambda home, corpus, index: Scored(scores))
        refs = find_negatives.produce(world.home, inputs, config)
    return read_table(world.home.path, refs["negatives"]).to_dicts()


@given(
    positives=st.sets(st.integers(3, 11), min_size=1, max_size=4),
    grid=st.lists(st.sampled_from([0.5, 0.96, 0.97, 0.970001, 0.98]), min_size=12, max_size=12),
    depth=st.integers(1, 12),
    length=st.integers(8, 14),
)
@settings(max_examples=60, deadline=None)
def test_a_negative_is_a_neighbour_against_which_no_rule_speaks(
    world: WordWorld, positives: set[int], grid: list[float], depth: int, length: int
) -> None:
    scores = [[grid[(seed + chunk) % 12] if seed != chunk else 1.0 for chunk in range(12)] for seed in range(12)]
    rows = negatives_of(world, positives, scores, NegativesConfig(depth=depth, copy_characters=length))
    chunks, root = literal_world(world)
    for seed in positives:
        own = [row for row in rows if row["seed_chunk"] == seed]
        order = [chunk for chunk in literal_method.neighbours(scores[seed]) if chunk != seed][:depth]
        assert [row["chunk"] for row in own] == order
        for row, chunk in zip(own, order, strict=True):
            reasons = literal_method.negative_reasons(
                chunk, seed, scores[seed][chunk], positives, chunks, root, length=length
            )
            assert row["kept"] == (not reasons)
            assert row["reason"] in reasons if reasons else row["reason"] is None
    assert len(rows) == len(positives) * min(depth, 11)


def test_a_near_duplicate_by_cosine_and_by_run(world: WordWorld) -> None:
    """Seed "zeta eta theta" (chunk 9): a cosine of 0.97 is not over 0.97; "zeta eta" has eight characters of it."""
    cosines = [0.1] * 9 + [1.0, 0.97, 0.970001]
    table = {9: cosines}
    scores = [table.get(seed, [0.0] * 12) for seed in range(12)]
    reasons = {
        length: {row["chunk"]: row["reason"] for row in negatives_of(
            world, {9}, scores, NegativesConfig(depth=12, copy_characters=length))}
        for length in (8, 9)
    }  # fmt: skip
    assert reasons[8][10] == "near-duplicate"  # the whole of its eight characters
    assert reasons[9][10] is None
    assert reasons[9][11] == "near-duplicate"  # 0.970001
    assert reasons[9][5] is None
    assert reasons[9][0] == "root-document"
    assert reasons[9][3] == "copy"


@given(
    ids=st.lists(st.integers(0, 3), max_size=8),
    previous=st.integers(0, 3),
    token=st.integers(0, 3),
)
def test_literal_means_the_bigram_stands_in_the_chunk(ids: list[int], previous: int, token: int) -> None:
    text, wanted = "".join(map(str, ids)), f"{previous}{token}"
    assert is_literal(ids, previous, token) == (wanted in text)


@given(before=st.floats(0, 9, width=32), after=st.floats(0, 9, width=32))
@example(before=0.0, after=1.0)
def test_a_gain_is_the_share_of_the_uncertainty_that_went(before: float, after: float) -> None:
    gain = relative_gain(before, after)
    assert gain == (0 if before == 0 else (before - after) / before)
    assert gain <= 1
    assert before == 0 or (gain > 0) == (after < before)
