"""Attributable gain against full passes over samples with and without the chunk, one per dependency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.extension import ExtensionConfig, extend
from models.policy import load_config, load_policy
from models.scoring import Context, Scorer, Scores
from storage.errors import ConfigError, PolicyError
from storage.home import Home
from storage.schemas import SAMPLES
from storage.tables import write_table
from tasks.measurements.attribution import AttributionConfig, attributable_gain
from tasks.measurements.attribution_figures import AttributableGain, Measured, summary
from tasks.measurements.dependencies import Chosen, bucket_bounds, bucket_of, choose_dependencies, turns
from tasks.training.handoff import add_base_policy
from tests.published_world import PublishedWorld, changed_policy, publish_tables, publish_world, sharp_world
from tests.tiny_policies import tiny_policy, tiny_tokenizer

ALL = AttributionConfig(enabled=True, dependencies=1000, device="cpu", threads=1)
NATIVE, LENGTH = 110, 128


@pytest.fixture
def published(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedWorld:
    monkeypatch.setattr("tasks.measurements.dependencies.NEAREST", 16)
    return publish_world(sharp_world(home, tmp_path, monkeypatch))


class Recording(Scorer):
    """Notes every context that is read."""

    contexts: list[Context] = []  # noqa: RUF012

    def score(self, contexts: Sequence[Context], **options: Any) -> list[Scores]:
        Recording.contexts.extend(contexts)
        return super().score(contexts, **options)


def _squash(text: str) -> str:
    return " ".join(text.split())


def _allowed(published: PublishedWorld, sample: dict[str, Any]) -> dict[int, list[int]]:
    """Chunk → tokens of all chunks that may stand in for one of the sample."""
    world, roots = published.world, {root["root_id"]: root for root in published.rows("roots")}
    tokenizer: Any = AutoTokenizer.from_pretrained(world.folder)
    here = {segment["chunk_id"] for segment in sample["segments"]}
    found = {}
    for row, chunk in enumerate(world.chunks):
        fits = chunk["chunk_id"] not in here
        for segment in sample["segments"]:
            if segment["kind"] == "root":
                root = roots[segment["root_id"]]
                text = _squash(world.documents[root["doc"]]["text"][root["char_start"] : root["char_end"]])
                words = _squash(chunk["text"])
                fits &= root["doc"] != chunk["doc"]
                fits &= not any(words[i : i + 20] in text for i in range(len(words) - 19))
        if fits:
            found[row] = tokenizer(chunk["text"], add_special_tokens=False)["input_ids"]
    return found


def _made_of(tokens: list[int], chunks: list[list[int]]) -> bool:
    """Whether the tokens are whole chunks one after the other, the last one perhaps cut."""
    if any(chunk[: len(tokens)] == tokens for chunk in chunks):
        return True
    return any(tokens[: len(chunk)] == chunk and _made_of(tokens[len(chunk) :], chunks) for chunk in chunks if chunk)


@torch.no_grad()
def _entropy(model: Any, ids: Sequence[int], position: int) -> float:
    p = torch.softmax(model(torch.tensor([list(ids)])).logits[0, position - 1].double(), -1).tolist()
    return -sum(x * math.log(x) for x in p if x > 0)


def _stretched(folder: Path) -> Any:
    config = extend(load_config(folder), ExtensionConfig(context=LENGTH))
    return load_policy(folder, device="cpu", config=config).model


def test_gains_are_those_of_plain_passes(
    home: Home, published: PublishedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    Recording.contexts = []
    monkeypatch.setattr("tasks.measurements.attribution.Scorer", Recording)
    result = attributable_gain(home, published.version, published.world.policy, ALL)
    model = _stretched(published.world.folder)
    samples = published.rows("samples")
    gains: list[float] = []
    of_bucket: dict[int, list[float]] = {}
    far: list[float] = []
    recorded: list[float] = []
    matched = 0
    for sample in samples:
        plain = sample["input_ids"]
        allowed = list(_allowed(published, sample).values())
        spans = {s["chunk_id"]: (s["start"], s["end"]) for s in sample["segments"]}
        for dependency in sample["dependencies"]:
            start, end = spans[dependency["chunk_id"]]
            swapped = [
                list(context.ids)
                for context in Recording.contexts
                if list(context.ids[:start]) == plain[:start]
                and list(context.ids[end:]) == plain[end:]
                and list(context.ids) != plain
            ]
            assert len(swapped) == 1, "one pass per replaced segment"
            assert len(swapped[0]) == len(plain)
            assert _made_of(swapped[0][start:end], allowed)
            position = dependency["position"]
            without, inside = _entropy(model, swapped[0], position), _entropy(model, plain, position)
            gain = (without - inside) / dependency["entropy_before"]
            gains.append(gain)
            recorded.append(dependency["gain"])
            of_bucket.setdefault((dependency["distance"] // 16).bit_length(), []).append(gain)
            far += [gain] if position > NATIVE else []
        matched += sum(list(context.ids) == plain for context in Recording.contexts)
    assert matched == len(samples), "one pass over each sample"
    assert len(gains) >= 20
    assert max(gains) - min(gains) > 0.1
    assert result.mean == pytest.approx(mean(gains), abs=1e-4)
    assert result.recorded == pytest.approx(mean(recorded), abs=1e-6)
    assert result.survived == pytest.approx(mean(gain > 0.1 for gain in gains))
    assert (result.count, result.dependencies) == (len(gains), len(gains))
    squares = sum((gain - mean(values)) ** 2 for values in of_bucket.values() for gain in values)
    error = math.sqrt(squares / (len(gains) - len(of_bucket)) / len(gains))
    assert result.standard_error == pytest.approx(error, rel=1e-3)
    assert len(of_bucket) >= 3
    for bucket in result.buckets:
        values = of_bucket[(bucket.low // 16).bit_length()]
        assert (bucket.count, bucket.dependencies) == (len(values), len(values))
        assert bucket.mean == pytest.approx(mean(values), abs=1e-4)
    assert 0 < len(far) < len(gains)
    assert (result.beyond_native.count, result.beyond_native.mean) == (len(far), pytest.approx(mean(far), abs=1e-4))
    assert (result.native_context, result.sample_tokens) == (NATIVE, LENGTH)
    assert result.tokens_read == sum(context.needed for context in Recording.contexts)
    assert result.note == "measured with its positions stretched from 110 to 128 tokens, untrained"
    assert result.figures()["attributable_gain"] == result.mean


def test_a_measurement_is_made_once(home: Home, published: PublishedWorld, tmp_path: Path) -> None:
    few = ALL.model_copy(update={"dependencies": 6})
    first = attributable_gain(home, published.version[:12], published.world.policy[:12], few)
    assert first.count == 6
    assert first.dependencies > 20
    before = (home / "journal.jsonl").read_text()
    assert attributable_gain(home, published.version, published.world.policy, few) == first
    off = few.model_copy(update={"enabled": False})
    assert attributable_gain(home, published.version, published.world.policy, off) == first
    assert (home / "journal.jsonl").read_text() == before
    later = changed_policy(home, published.world, tmp_path / "later", noise=0.3)
    second = attributable_gain(home, published.version, later, few)
    assert second.policy == later
    assert second.mean != first.mean
    assert [bucket.count for bucket in second.buckets] == [bucket.count for bucket in first.buckets]


def test_a_dependency_that_nothing_may_replace_is_left_out(
    home: Home, published: PublishedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.measurements.attribution.exclusion", lambda *_: "copy")
    result = attributable_gain(home, published.version, published.world.policy, ALL)
    assert (result.count, result.mean, result.tokens_read) == (0, None, 0)
    assert f"{result.dependencies} dependencies were left out" in result.note


def test_a_version_without_dependencies_says_so(home: Home, published: PublishedWorld) -> None:
    bare = [sample | {"dependencies": []} for sample in published.rows("samples")]
    refs = {"samples": [write_table(home.path, "work/bare.parquet", SAMPLES, bare)]}
    result = attributable_gain(home, publish_tables(published.world, 1, refs), published.world.policy, ALL)
    assert (result.count, result.mean, result.standard_error, result.buckets) == (0, None, None, ())
    assert result.note == "the version has no dependencies"


def test_policies_that_can_not_read_the_samples_are_named(
    home: Home, published: PublishedWorld, tmp_path: Path
) -> None:
    learned = add_base_policy(home, tiny_policy(tmp_path / "gpt2", "gpt2")).digest
    with pytest.raises(ConfigError, match=r"no rotary positions.*at most 64 tokens \(build\.assembly\.target_tokens\)"):
        attributable_gain(home, published.version, learned, ALL)
    folder = tiny_policy(tmp_path / "other")
    tiny_tokenizer(280).save_pretrained(folder)
    other = add_base_policy(home, folder).digest
    with pytest.raises(PolicyError, match="another tokenizer"):
        attributable_gain(home, published.version, other, ALL)


def _dependency(distance: int, gain: float = 0.5, position: int = 5000) -> Chosen:
    return Chosen(0, 0, 8192, position, "c", distance, 2.0, gain)


def test_a_mean_is_that_of_the_version_and_not_of_the_choice() -> None:
    measured = [
        Measured(_dependency(100, gain=0.6), 0.5),
        Measured(_dependency(100, gain=0.8), 0.7),
        Measured(_dependency(3000, gain=0.4, position=4096), 0.1),
    ]
    result: AttributableGain = summary(
        measured, {0: 90, 5: 10, 6: 3}, policy="p", version="v", epsilon=0.4, native_context=4096, sample_tokens=8192,
        tokens_read=7, left_out=1,
    )  # fmt: skip
    assert result.mean == pytest.approx((90 * 0.6 + 10 * 0.1) / 100)
    assert result.recorded == pytest.approx((90 * 0.7 + 10 * 0.4) / 100)
    assert result.survived == pytest.approx(0.9)
    assert result.standard_error == pytest.approx(math.sqrt(0.02 * (0.9**2 / 2 + 0.1**2)))
    assert result.beyond_native.model_dump() == {"count": 2, "mean": pytest.approx(0.6), "recorded": pytest.approx(0.7)}
    assert result.distance_beyond_native.count == 0
    assert [(b.low, b.high, b.count, b.dependencies, b.mean) for b in result.buckets] == [
        (0, 128, 2, 90, pytest.approx(0.6)),
        (2048, 4096, 1, 10, pytest.approx(0.1)),
        (4096, 8192, 0, 3, None),
    ]


def test_chosen_dependencies_are_spread_over_distances(home: Home) -> None:
    distances = [*range(10, 110), *range(300, 310), 5000]
    dependencies = [
        {
            "root_id": "r", "t": 1, "position": 6000 + number, "chunk_id": f"c{number}", "distance": distance,
            "entropy_before": 2.0, "entropy_after": 1.0, "gain": 0.5,
        }
        for number, distance in enumerate(distances)
    ]  # fmt: skip
    rows = [
        {"sample_id": f"s{n}", "input_ids": [0], "length": 8192, "segments": [], "dependencies": dependencies[n::2]}
        for n in range(2)
    ]
    ref = write_table(home.path, "work/spread.parquet", SAMPLES, rows)
    chosen, counts = choose_dependencies(home, [ref], wanted=15, seed=0)
    assert counts == {0: 100, 2: 10, 6: 1}
    assert [sum(bucket_of(one.distance) == b for one in chosen) for b in (0, 2, 6)] == [7, 7, 1]
    assert choose_dependencies(home, [ref], wanted=15, seed=0) == (chosen, counts)
    assert choose_dependencies(home, [ref], wanted=15, seed=1)[0] != chosen
    more = choose_dependencies(home, [ref], wanted=30, seed=0)[0]
    assert set(chosen) <= set(more), "a larger measurement repeats the smaller one"
    everything = choose_dependencies(home, [ref], wanted=1000, seed=0)[0]
    assert {(one.row, one.position) for one in everything} == {(n % 2, 6000 + n) for n in range(len(distances))}


@given(st.integers(0, 1 << 20))
def test_a_distance_lies_in_its_bucket(distance: int) -> None:
    low, high = bucket_bounds(bucket_of(distance))
    assert low <= distance < high
    assert low == 0 or high == 2 * low


@given(st.dictionaries(st.integers(0, 12), st.integers(1, 30)), st.integers(0, 100))
def test_buckets_take_turns(counts: dict[int, int], wanted: int) -> None:
    given_ = turns(counts, wanted)
    assert sum(given_.values()) == min(wanted, sum(counts.values()))
    assert all(given_[bucket] <= counts[bucket] for bucket in counts)
    unfilled = [given_[bucket] for bucket in counts if given_[bucket] < counts[bucket]]
    assert max(given_.values(), default=0) - min(unfilled, default=10**9) <= 1


def test_the_stretched_reference_is_not_the_plain_model(published: PublishedWorld) -> None:
    ids = published.rows("samples")[0]["input_ids"]
    plain: Any = AutoModelForCausalLM.from_pretrained(published.world.folder).eval()
    assert _entropy(_stretched(published.world.folder), ids, 120) != pytest.approx(_entropy(plain, ids, 120), abs=1e-4)
