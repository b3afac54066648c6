"""The probe set compared: numbers worked by hand, and screenings that are the rounds' own."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.embedders import EmbedderConfig
from storage.errors import ConfigError, InputError
from storage.home import Home
from storage.vectors import IndexConfig
from tasks.measurements.probe import ProbeSet, compare_probe, compare_versions, drift, probe_of_version
from tasks.measurements.probe_screening import probe_null, screen_probe
from tasks.resources import release
from tasks.screening.roots import RootsConfig
from tests.published_world import PublishedWorld, changed_policy, publish_tables, publish_world, sharp_world
from tests.world import World


def _set(
    roots: list[tuple[int, float, float]], spots: dict[tuple[int, int], float], pairs: dict[tuple[int, int, int], bool]
) -> ProbeSet:
    """Of (root, mean, threshold), {(root, t): entropy} and {(root, t, chunk): kept}."""
    return ProbeSet(
        screened=pl.DataFrame(roots, schema=["root", "mean", "threshold"], orient="row"),
        positions=pl.DataFrame([(*k, v) for k, v in spots.items()], schema=["root", "t", "entropy"], orient="row"),
        verdicts=pl.DataFrame([(*k, v) for k, v in pairs.items()], schema=["root", "t", "chunk", "kept"], orient="row"),
    )


BEFORE = _set(
    [(0, 1.0, 2.0), (1, 2.0, 4.0), (2, 3.0, 3.0)],
    {(0, 5): 4.0, (0, 9): 3.0, (1, 2): 5.0, (1, 3): 6.0},
    {(0, 5, 7): True, (0, 9, 7): True, (1, 2, 8): True, (1, 3, 8): False},
)
AFTER = _set(
    [(0, 1.5, 2.5), (1, 1.0, 3.0), (2, 3.5, 4.5)],
    {(0, 5): 4.5, (0, 8): 3.0, (1, 2): 4.0, (1, 3): 6.5},
    {(0, 5, 7): True, (0, 8, 7): True, (1, 2, 8): False, (1, 2, 9): True, (1, 3, 8): True},
)


def test_a_comparison_by_hand() -> None:
    found = compare_probe(BEFORE, AFTER)
    assert (found.positions_before, found.positions_after, found.positions_shared) == (4, 4, 3)
    assert found.overlap_positions == 3 / 5
    assert (found.positives_before, found.positives_after, found.positives_shared) == (3, 4, 1)
    assert found.overlap_positives == 1 / 6
    assert found.overlap_positives_at_shared_positions == 1 / 4
    assert (found.entropy.count, found.entropy.mean, found.entropy.mean_absolute) == (3, 0.0, pytest.approx(2 / 3))
    assert found.entropy.pearson == pytest.approx(statistics.correlation([4, 5, 6], [4.5, 4, 6.5]))
    assert found.entropy.spearman == pytest.approx(0.5)
    assert (found.mean_entropy.mean, found.threshold.mean) == (pytest.approx(0.0), pytest.approx(1 / 3))
    assert found.threshold.mean_absolute == pytest.approx(1.0)
    figures = found.figures()
    assert figures["probe_overlap_positions"] == 3 / 5
    assert figures["probe_threshold_drift"] == pytest.approx(1 / 3)
    assert set(found.figures("null")) == {name.replace("probe_", "null_", 1) for name in figures}


def test_nothing_to_compare_has_no_figures() -> None:
    nothing = _set([], {}, {})
    empty = ProbeSet(
        nothing.screened.cast(pl.Float64),
        nothing.positions.cast(pl.Float64),
        nothing.verdicts.cast({"root": pl.Int32, "t": pl.Int32, "chunk": pl.Int32, "kept": pl.Boolean}),
    )
    spots = empty.positions.cast({"root": pl.Int32, "t": pl.Int32})
    found = compare_probe(replace(empty, positions=spots), replace(empty, positions=spots))
    assert found.figures() == {}
    assert (found.roots, found.entropy.count) == (0, 0)


def _ranks(values: list[float]) -> list[float]:
    return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]


PAIRS = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=0, max_size=12)


@given(PAIRS)
def test_drift_is_the_textbooks(pairs: list[tuple[int, int]]) -> None:
    before, after = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    found = drift(np.array(before), np.array(after))
    assert found.count == len(pairs)
    if pairs:
        assert found.mean == pytest.approx(statistics.mean(b - a for a, b in pairs))
        assert found.mean_absolute == pytest.approx(statistics.mean(abs(b - a) for a, b in pairs))
    if len(pairs) < 3 or len(set(before)) == 1 or len(set(after)) == 1:
        assert found.pearson is found.spearman is None
    else:
        assert found.pearson == pytest.approx(statistics.correlation(before, after), abs=1e-9)
        assert found.spearman == pytest.approx(statistics.correlation(_ranks(before), _ranks(after)), abs=1e-9)


@pytest.fixture
def world(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return sharp_world(home, tmp_path, monkeypatch)


ENGINES: dict[str, Any] = {"embedder": EmbedderConfig(), "index": IndexConfig()}


def _started(home: Home) -> int:
    return (home / "journal.jsonl").read_text().count('"started"')


def test_a_screening_is_the_rounds_own(home: Home, world: World) -> None:
    published = publish_world(world)
    before = _started(home)
    found = screen_probe(home, world.corpus, world.policy[:12], world.config, **ENGINES)
    assert _started(home) == before, "a step was done twice"
    roots, of_version = probe_of_version(home, published.version)
    assert list(roots) == [row["root_id"] for row in published.rows("roots") if row["role"] == "probe"]
    for name in ("screened", "positions", "verdicts"):
        assert getattr(found, name).equals(getattr(of_version, name))
    assert set(found.screened["root"]) == {0, 1}
    assert len(found.verdicts)
    release()


def test_the_same_checkpoint_again_is_computed_again_and_agrees(home: Home, world: World) -> None:
    found = probe_null(home, world.corpus, world.policy, world.policy, world.config, **ENGINES)
    steps = [line for line in (home / "journal.jsonl").read_text().splitlines() if '"started"' in line]
    assert sum('"entropy"' in line for line in steps) == sum('"verification"' in line for line in steps) == 2
    assert found.overlap_positions == 1.0
    assert found.overlap_positives is not None
    assert found.overlap_positives > 0.95
    assert found.entropy.mean_absolute == pytest.approx(0.0, abs=1e-5)
    before = _started(home)
    assert probe_null(home, world.corpus, world.policy, world.policy, world.config, **ENGINES) == found
    assert _started(home) == before
    release()


def test_another_checkpoint_is_compared_with_the_first(home: Home, world: World, tmp_path: Path) -> None:
    later = changed_policy(home, world, tmp_path / "later", noise=0.5)
    found = probe_null(home, world.corpus, world.policy, later, world.config, **ENGINES)
    first, second = (screen_probe(home, world.corpus, p, world.config, **ENGINES) for p in (world.policy, later))
    release()
    assert found == compare_probe(first, second)
    spots = [set(s.positions.select("root", "t").iter_rows()) for s in (first, second)]
    assert found.overlap_positions == len(spots[0] & spots[1]) / len(spots[0] | spots[1])
    assert found.overlap_positions < 1
    means = [dict(s.screened.select("root", "mean").iter_rows()) for s in (first, second)]
    assert found.mean_entropy.mean == pytest.approx(statistics.mean(means[1][r] - means[0][r] for r in means[0]))


def test_versions_compare_on_their_probe_roots(home: Home, world: World, tmp_path: Path) -> None:
    published = publish_world(world)
    later = changed_policy(home, world, tmp_path / "later", noise=0.5)
    second = publish_world(replace(world, policy=later, folder=home / f"policies/{later[:16]}"), 2)
    found = compare_versions(home, published.version, second.version)
    assert found == probe_null(home, world.corpus, world.policy, later, world.config, **ENGINES)
    release()
    others = world.config.model_copy(update={"roots": world.config.roots.model_copy(update={"seed": 3})})
    stranger = publish_world(replace(world, config=others))
    with pytest.raises(InputError, match="different probe roots"):
        compare_versions(home, published.version, stranger.version)


def test_a_version_or_a_config_without_a_probe_set_is_refused(home: Home, world: World) -> None:
    published: PublishedWorld = publish_world(world)
    version = publish_tables(world, 1, {"samples": published.refs["samples"]})
    with pytest.raises(InputError, match="has no probe set"):
        probe_of_version(home, version)
    none = world.config.model_copy(update={"roots": RootsConfig(probe_roots=0)})
    with pytest.raises(ConfigError, match=r"build\.roots\.probe_roots is 0"):
        screen_probe(home, world.corpus, world.policy, none, **ENGINES)
