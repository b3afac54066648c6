"""A version's dependencies under another policy, against plain passes of that policy."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from storage.errors import ConfigError, PolicyError
from storage.home import Home
from storage.policies import policy_folder
from tasks.measurements.remeasuring import RemeasuringConfig, measured_under
from tasks.training.handoff import add_base_policy
from tests.published_world import PublishedWorld, changed_policy, publish_tables, publish_world, sharp_world
from tests.tiny_policies import tiny_policy, tiny_tokenizer

ALL = RemeasuringConfig(enabled=True, dependencies=10_000, device="cpu", threads=1)
PROBE_ROOTS = 2


@pytest.fixture
def published(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedWorld:
    return publish_world(sharp_world(home, tmp_path, monkeypatch))


def _kept(published: PublishedWorld) -> list[dict[str, Any]]:
    return [row for row in published.rows("verdicts") if row["kept"] and row["root"] >= PROBE_ROOTS]


@torch.no_grad()
def _entropy(model: Any, ids: list[int], place: int) -> float:
    p = torch.softmax(model(torch.tensor([ids])).logits[0, place - 1].double(), -1).tolist()
    return -sum(x * math.log(x) for x in p if x > 0)


def test_under_its_own_policy_a_version_measures_as_recorded(home: Home, published: PublishedWorld) -> None:
    result = measured_under(home, published.version, published.world.policy, ALL)
    rows = _kept(published)
    assert (result.count, result.dependencies) == (len(rows), len(rows))
    assert result.mean_gain == pytest.approx(mean(row["gain"] for row in rows), abs=1e-4)
    assert result.recorded_gain == pytest.approx(mean(row["gain"] for row in rows))
    assert result.kept_share == pytest.approx(1.0, abs=0.02)
    assert result.mean_entropy_before == pytest.approx(mean(row["entropy_before"] for row in rows), abs=1e-4)
    assert result.mean_entropy_after == pytest.approx(mean(row["entropy_after"] for row in rows), abs=1e-4)


def test_under_another_policy_it_is_that_policys_own_test(
    home: Home, published: PublishedWorld, tmp_path: Path
) -> None:
    later = changed_policy(home, published.world, tmp_path / "later", noise=0.4)
    result = measured_under(home, published.version, later, ALL)
    folder = policy_folder(home, later)
    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    roots, chunks = published.rows("roots"), published.world.chunks
    gains, before, after = [], [], []
    for row in _kept(published):
        ids = roots[row["root"]]["input_ids"]
        front = tokenizer(chunks[row["chunk"]]["text"], add_special_tokens=False)["input_ids"]
        front = front + tokenizer("\n\n", add_special_tokens=False)["input_ids"]
        before.append(_entropy(model, ids, row["t"]))
        after.append(_entropy(model, front + ids, len(front) + row["t"]))
        gains.append((before[-1] - after[-1]) / before[-1])
    assert result.mean_gain == pytest.approx(mean(gains), abs=1e-4)
    assert result.mean_gain != pytest.approx(result.recorded_gain, abs=1e-2)
    assert result.standard_error == pytest.approx(stdev(gains) / len(gains) ** 0.5, rel=1e-3)
    assert result.kept_share == pytest.approx(mean(gain > 0.1 for gain in gains), abs=0.01)
    assert 0 < mean(gain > 0.1 for gain in gains) < 1
    assert result.pooled_gain == pytest.approx(1 - sum(after) / sum(before), abs=1e-4)
    assert result.mean_entropy_before == pytest.approx(mean(before), abs=1e-4)
    assert result.mean_entropy_after == pytest.approx(mean(after), abs=1e-4)


def test_a_subset_is_fixed_and_measured_once(home: Home, published: PublishedWorld, tmp_path: Path) -> None:
    few = ALL.model_copy(update={"dependencies": 12})
    first = measured_under(home, published.version[:12], published.world.policy[:12], few)
    assert first.count == 12
    assert first.dependencies == len(_kept(published))
    before = (home / "journal.jsonl").read_text()
    assert measured_under(home, published.version, published.world.policy, few) == first
    assert (home / "journal.jsonl").read_text() == before
    later = changed_policy(home, published.world, tmp_path / "later", noise=0.4)
    assert measured_under(home, published.version, later, few).recorded_gain == first.recorded_gain
    other = measured_under(home, published.version, published.world.policy, few.model_copy(update={"seed": 1}))
    assert other.recorded_gain != first.recorded_gain
    assert first.figures()["measured_under_gain"] == first.mean_gain


def test_a_version_without_verdicts_says_so(home: Home, published: PublishedWorld) -> None:
    version = publish_tables(published.world, 1, {"samples": published.refs["samples"]})
    result = measured_under(home, version, published.world.policy, ALL)
    assert (result.count, result.mean_gain, result.note) == (0, None, "the version has no kept verdicts")
    assert result.figures() == {"measured_under_count": 0.0}


def test_policies_that_can_not_judge_the_version_are_named(
    home: Home, published: PublishedWorld, tmp_path: Path
) -> None:
    short = add_base_policy(home, tiny_policy(tmp_path / "short", max_position_embeddings=40)).digest
    with pytest.raises(ConfigError, match=r"needs \d+ tokens, the policy's context is 40"):
        measured_under(home, published.version, short, ALL)
    folder = tiny_policy(tmp_path / "other")
    tiny_tokenizer(280).save_pretrained(folder)
    other = add_base_policy(home, folder).digest
    with pytest.raises(PolicyError, match="another tokenizer"):
        measured_under(home, published.version, other, ALL)
