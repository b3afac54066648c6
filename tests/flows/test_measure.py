"""What is measured after a round: figures in the campaign's record, no sample changed, nothing measured twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flows.campaign import campaign
from flows.presets import Preset
from storage.campaigns import Campaign
from storage.home import Home
from tasks.measurements.attribution import AttributionConfig
from tasks.measurements.measures import MeasuresConfig
from tasks.measurements.remeasuring import RemeasuringConfig
from tests.campaigns import small_preset, without_pages
from tests.world import World, make_world

pytestmark = pytest.mark.usefixtures("prefect_server")
MEASURES = MeasuresConfig(
    attribution=AttributionConfig(enabled=True, dependencies=4, device="cpu", threads=1),
    matrix=RemeasuringConfig(enabled=True, dependencies=4, device="cpu", threads=1),
    nulls=True,
)


class Recorded:
    """Stands for MLflow: keeps the metrics of each round."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []

    def round_run(self, *_: Any, **__: Any) -> str:
        return "run"

    def log_round(self, run: str, *, metrics: dict[str, float]) -> None:
        self.metrics.append(metrics)


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, recorded: Recorded) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        without_pages(patch)
        patch.setattr("flows.measure.Tracking", lambda home: recorded)
        yield make_world(Home.open(folder / "home"), folder / "scratch", patch)


@pytest.fixture(scope="module")
def preset(world: World) -> Preset:
    return small_preset(world, "measured", rounds=2).model_copy(update={"measures": MEASURES})


@pytest.fixture(scope="module")
def measured(world: World, preset: Preset, prefect_server: None) -> Campaign:
    return campaign(str(world.home.path), preset).campaign


def test_each_round_has_the_figures_of_what_was_switched_on(measured: Campaign, recorded: Recorded) -> None:
    first, second = (record.figures for record in measured.rounds)
    assert {k for k in first if k.startswith("round_") and k.endswith("_count")} == {
        "round_1_under_policy_0_count",
        "round_1_under_policy_1_count",
    }
    assert {k for k in second if k.startswith("round_") and k.endswith("_count")} == {
        "round_1_under_policy_2_count",
        "round_2_under_policy_0_count",
        "round_2_under_policy_1_count",
        "round_2_under_policy_2_count",
    }
    for figures in (first, second):
        assert 0 < float(str(figures["attributable_gain_count"])) <= 4
        assert "attributable_gain" in figures
        assert figures["attributable_gain"] != figures["attributable_gain_after"], "another policy measures otherwise"
    assert all(recorded.metrics[n].items() <= measured.rounds[n].figures.items() for n in (0, 1))


def test_the_same_policy_read_again_is_the_null_of_no_change(measured: Campaign) -> None:
    for record in measured.rounds:
        assert record.figures["null_same_overlap_positions"] == 1
        assert record.figures["null_same_entropy_drift"] == 0
        assert 0 <= float(str(record.figures["null_standard_overlap_positions"])) <= 1
        assert record.figures["null_standard_entropy_drift"] != 0


def test_measuring_changes_no_sample_and_is_done_once(
    world: World, preset: Preset, measured: Campaign, recorded: Recorded
) -> None:
    before = (world.home / "journal.jsonl").read_text().count('"started"')
    told = len(recorded.metrics)
    again = campaign(str(world.home.path), preset).campaign
    assert (world.home / "journal.jsonl").read_text().count('"started"') == before
    assert [r.figures for r in again.rounds] == [r.figures for r in measured.rounds]
    assert recorded.metrics[told:] == recorded.metrics[:told]
    plain = campaign(str(world.home.path), small_preset(world, "plain", rounds=2)).campaign
    assert [r.version for r in plain.rounds] == [r.version for r in measured.rounds]
    assert not [name for name in plain.rounds[0].figures if name.startswith(("round_", "null_", "attribut"))]
