"""Benchmarks: whether what stands side by side is the same work. No test looks at a time."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.embedders import EmbedderConfig
from models.scoring import Context, Scorer
from storage.errors import ResourceError
from storage.home import Home
from storage.tables import read_table
from storage.vectors import IndexConfig
from tasks.benchmarks import searching
from tasks.benchmarks.assembling import assembling
from tasks.benchmarks.children import in_child
from tasks.benchmarks.gpu import Shape, gpu, random_model
from tasks.benchmarks.growth import growth, growth_work
from tasks.benchmarks.literal import one_each, same_passes
from tasks.benchmarks.measurement import Figure, Target
from tasks.benchmarks.rounds import covered, round_shares, watched
from tasks.benchmarks.scaling import TOP, scaled, synthetic
from tasks.benchmarks.scene import Judged, Scene, judged
from tasks.benchmarks.scoring import evenly, scoring
from tasks.benchmarks.sizes import SMALL
from tasks.benchmarks.timing import in_turns
from tasks.benchmarks.verdicts import Agreement, compared, gains_by_engine, gains_by_the_letter
from tasks.benchmarks.yields import yield_measurements
from tasks.measurements.yield_curves import YieldArm, YieldPoint, YieldReport
from tasks.resources import release
from tasks.rounds.building import policy_inputs
from tasks.screening.verification import Pair, verify
from tests.literal_method import LiteralPolicy, relative_gain
from tests.world import make_world

TINY = SMALL.model_copy(
    update={
        "roots": 3,
        "stress_tokens": 48,
        "stress_passes": 5,
        "assembled_roots": 7,
        "sample_tokens": 256,
        "growth_chunks": (20, 80),
        "growth_roots": 3,
    }
)


@pytest.fixture
def scene(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    world = make_world(home, tmp_path, monkeypatch)
    policy = policy_inputs(world.policy, world.folder, world.config.numeric)
    yield Scene(home, world.corpus, policy, world.config, EmbedderConfig(), IndexConfig())
    release()


def test_all_ways_to_score_give_the_gains_of_one_prediction_at_a_time(scene: Scene) -> None:
    reader, roots = scene.loaded(), scene.roots()
    work = judged(scene, reader, roots, scene.candidates(roots, scene.positions(roots, scene.rows(3))))
    ours = gains_by_engine(reader, work)
    assert work.verdicts == len(ours) > len(work.pairs) > 3
    assert len(one_each(work.contexts, cut=False)) == work.verdicts
    assert len(same_passes(work.contexts)) == len(work.pairs)
    for cut in (False, True):
        letter = gains_by_the_letter(reader, work, cut=cut)
        assert letter == pytest.approx(ours, abs=2e-5)

    literal = LiteralPolicy.load(Path(scene.policy.folder), scene.build.verification.separator)
    ids = read_table(scene.home.path, roots, ["input_ids"])["input_ids"].to_list()
    texts = read_table(scene.home.path, scene.corpus.chunks, ["text"])["text"].to_list()
    for (root, t, chunk), gain in itertools.islice(ours.items(), 6):
        before = literal.predict((*literal.bos, *ids[root][:t]), ids[root][t])
        after = literal.with_chunk(texts[chunk], ids[root], t)
        assert gain == pytest.approx(relative_gain(before.entropy, after.entropy), abs=2e-5)


def test_a_literal_pass_is_as_long_as_ours_or_ends_before_its_position(scene: Scene) -> None:
    reader, roots = scene.loaded(), scene.roots()
    work = judged(scene, reader, roots, scene.candidates(roots, scene.positions(roots, scene.rows(3))))
    wanted = [(context.needed, position) for context in work.contexts for position in context.positions]
    assert [(one.length, *one.positions) for one in one_each(work.contexts, cut=False)] == wanted
    assert [(one.length, *one.positions) for one in one_each(work.contexts, cut=True)] == [(p, p) for _, p in wanted]


def test_verdicts_that_differ_are_counted_apart_where_they_are_near_the_limit() -> None:
    ours = {(0, 1, 1): 0.5, (0, 1, 2): 0.40004, (0, 1, 3): 0.1, (0, 2, 1): 0.9, (0, 2, 2): 0.40003}
    other = {(0, 1, 1): 0.5, (0, 1, 2): 0.39999, (0, 1, 3): 0.7, (0, 2, 1): 0.8, (0, 2, 2): 0.40004}
    assert compared(ours, other, 0.4) == Agreement(pairs=5, near=2, different_near=1, different=1)
    with pytest.raises(ValueError, match="different pairs"):
        compared(ours, {}, 0.4)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(1, 12))
def test_passes_taken_evenly_serve_as_many_positions_as_all(positions: list[int], count: int) -> None:
    pairs = tuple(Pair(0, chunk, tuple(range(1, 1 + n))) for chunk, n in enumerate(positions))
    work = Judged({}, pairs, tuple(Context(range(20), pair.positions) for pair in pairs))
    taken = evenly(work, count)
    assert taken == sorted(set(taken))
    assert len(taken) == min(count, len(positions))
    largest = sorted(positions)
    for part, number in enumerate(sorted(taken, key=lambda n: (positions[n], n))):
        first, stop = (k * len(positions) // len(taken) for k in (part, part + 1))
        assert largest[first] <= positions[number] <= largest[min(stop, len(positions) - 1)]


def test_the_scoring_benchmark_compares_equal_verdicts(scene: Scene) -> None:
    found = scoring(scene, scene, TINY)
    assert [one.unit for one in found] == ["roots/s", "pairs/pass", "s/pass", "tokens/s", "pairs/s"]
    for one in (found[0], found[-1]):
        assert one.conditions["verdicts compared"] == one.conditions["pairs of position and candidate"]
        assert one.conditions["different otherwise"] == 0
    pairs, passes = (found[0].conditions[name] for name in ("pairs of position and candidate", "unique passes"))
    assert found[1].ratio == int(pairs) / int(passes)
    assert found[-1].conditions["unique passes"] == 5
    assert all(one.ratio is not None and len(one.alternatives) >= 1 for one in found)


def test_a_larger_table_of_chunks_gives_the_same_verdicts(scene: Scene) -> None:
    work = growth_work(scene, TINY)
    assert work.chunks == (20, 80)
    gains = []
    for inputs in (work.small, work.large):
        table = read_table(scene.home.path, verify.produce(scene.home, inputs, scene.build.verification)["verdicts"])
        chunks = table["chunk"].to_list()
        assert max(chunks) >= 20 or inputs is work.small
        rows = zip(table["root"], table["t"], (chunk % 20 for chunk in chunks), table["gain"], strict=True)
        gains.append(sorted(rows))
    small, large = gains
    assert [row[:3] for row in small] == [row[:3] for row in large]
    assert len(small) == work.pairs
    assert [row[3] for row in small] == pytest.approx([row[3] for row in large], abs=1e-5)
    assert growth(scene, TINY).ratio is not None


def test_assembly_and_its_alternatives_write_the_same_number_of_tokens(scene: Scene) -> None:
    found = assembling(scene, TINY)
    assert found.conditions["tokens"] == 256 * int(found.conditions["samples"]) > 0
    assert len(found.alternatives) == 4


def test_ways_take_turns_and_each_goes_first() -> None:
    clock = itertools.count()
    order: list[str] = []
    ways = {name: (lambda name=name: order.append(name)) for name in "abc"}
    times = in_turns(ways, repeats=3, clock=lambda: float(next(clock)))
    assert order == list("abc" + "abc" + "bca" + "cab")
    assert times.seconds == dict.fromkeys("abc", (1.0, 1.0, 1.0))
    assert times.figure("a", amount=5).value == 5.0
    assert times.per("a", 4).value == 0.25
    assert times.ratio("a", "b") == 1.0


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=8))
def test_time_that_overlaps_counts_once(spans: list[tuple[int, int]]) -> None:
    seconds = {second for start, length in spans for second in range(start, start + length)}
    assert covered([(float(start), float(start + length)) for start, length in spans]) == len(seconds)


def test_the_watch_leaves_what_it_watched_as_it_was() -> None:
    before, steps = Scorer.score, verify.produce
    with watched() as watch:
        assert Scorer.score is not before
        with pytest.raises(AttributeError):
            Scorer.score(None, [])  # type: ignore[arg-type]
    assert Scorer.score is before
    assert verify.produce is steps
    assert len(watch.intervals["policy"]) == 1


def test_shares_of_a_round_add_up(scene: Scene) -> None:
    roots = scene.roots()

    def build() -> None:
        scene.candidates(roots, scene.positions(roots, scene.rows(2)))

    retrieval, outside = round_shares(build, "small", {"roots": 2})
    whole = outside.alternatives[0].value
    parts = sum(float(outside.conditions[f"seconds in {name}"]) for name in ("entropy", "retrieval"))
    assert parts + float(outside.conditions["seconds outside all steps"]) == pytest.approx(whole, abs=0.05)
    assert outside.ratio is not None
    assert 0 < outside.ratio <= 1
    assert retrieval.ours.value <= whole


@pytest.mark.parametrize("there", [False, True])
def test_recall_is_against_every_cosine(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching.faiss_engine, "faiss_is_there", lambda: there)
    for name in ("flat", "graph"):
        monkeypatch.setattr(searching.faiss_engine, name, lambda dimension, threads: _EveryVector())
    monkeypatch.setattr(searching.faiss_engine, "breadth", lambda index, wanted: None)
    vectors = next(synthetic(300, seed=3))
    recalls, times = searching.compared_search(vectors, vectors[:7], 1, 1)
    assert recalls.ratio == 1.0
    assert recalls.met
    assert {one.label for one in recalls.alternatives} == {"ours, graph"} | (
        {"FAISS, flat", "FAISS, graph"} if there else set()
    )
    assert all(one.value == 1.0 for one in recalls.alternatives if one.label.startswith("FAISS"))
    assert (times.ratio is not None) is there


class _EveryVector:
    """Answers as an index of FAISS does, by comparing with every vector."""

    def add(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def search(self, queries: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        scores = queries @ self.vectors.T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        return np.take_along_axis(scores, order, axis=1), order


def test_nearest_vectors_and_recall_are_those_of_a_plain_loop() -> None:
    vectors = next(synthetic(60, seed=5))
    found = searching.nearest(vectors, vectors[:4], 3)
    for row in range(4):
        cosines = [float(vectors[n].astype(np.float64) @ vectors[row].astype(np.float64)) for n in range(60)]
        assert found[row].tolist() == sorted(range(60), key=lambda n: (-round(cosines[n], 6), n))[:3]
    assert searching.recall(found, np.array([[row, 99, 98] for row in range(4)])) == pytest.approx(1 / 3)


def test_synthetic_vectors_have_unit_length_and_one_engine_finds_its_own() -> None:
    blocks = list(synthetic(25_000, seed=0))
    assert [len(block) for block in blocks] == [20_000, 5_000]
    assert np.allclose(np.linalg.norm(blocks[1], axis=1), 1, atol=1e-5)
    found = scaled("ours, exact", 400, 3, 1)
    truth = searching.nearest(next(synthetic(400, seed=0)), next(synthetic(3, seed=1)), TOP)
    assert found.found == truth.tolist()


def test_a_child_answers_or_its_end_is_one_clear_error() -> None:
    assert in_child(len, [1, 2, 3]) == 3
    with pytest.raises(ResourceError, match="ended before it answered"):
        in_child(os._exit, 9)


def test_operations_of_a_shape_are_those_of_its_matrices() -> None:
    shape = Shape(hidden=32, layers=3, heads=4, key_heads=2, intermediate=48, vocabulary=100, context=16, contexts=2)
    model = random_model(shape, "cpu")
    weights = sum(p.numel() for name, p in model.named_parameters() if "layers" in name and p.dim() == 2)
    attention = 3 * 2 * 2 * (2 * 16) * 8 * 32
    head = 2 * shape.positions * 2 * 32 * 100
    assert shape.flops() == 2 * weights * 2 * 16 + attention + head


def test_the_gpu_row_is_a_share_of_the_measured_product() -> None:
    shape = Shape(16, 1, 2, 1, 16, vocabulary=64, context=16, contexts=2, positions=4, product=32)
    found = gpu(shape, 1, device="cpu")
    assert found.ratio == pytest.approx(found.ours.value / found.alternatives[0].value)


def test_an_order_by_yield_stands_beside_the_others() -> None:
    def arm(ordering: str, budget: str, passes: float) -> YieldArm:
        point = YieldPoint(
            positives=0.8,
            passes=passes,
            tokens=passes,
            of_exhaustive=passes / 0.8,
            literal_share=0.5,
            mean_gain=0.6,
            density=1.0,
        )
        return YieldArm(ordering=ordering, budget=budget, points=(point,))  # type: ignore[arg-type]

    report = YieldReport(
        version="v" * 64,
        round=1,
        learned_pairs=10,
        learned_kept=2,
        learned_passes=9,
        learned_positives=2,
        passes=100,
        positives=10,
        arms=(arm("exhaustive", "none", 0.8), arm("rank", "top_k", 0.6), arm("expected-yield", "floor", 0.2)),
    )
    (found,) = yield_measurements(report)
    assert found.ours.value == 0.2
    assert found.ratio == pytest.approx(0.25)
    assert found.met
    assert [one.label for one in found.alternatives] == ["exhaustive", "rank with top_k"]


def test_a_target_is_met_on_its_own_side() -> None:
    assert Target(sense="at least", value=5).met(5.0)
    assert not Target(sense="at least", value=5).met(4.9)
    assert Target(sense="at most", value=0.1).met(0.1)
    assert not Target(sense="at most", value=0.1).met(0.11)
    figure = Figure.of("x", [3.0, 1.0, 2.0])
    assert (figure.value, figure.low, figure.high, figure.repeats) == (2.0, 1.0, 3.0, 3)
