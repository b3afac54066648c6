"""A campaign goes on where it stands: it stops at a version that is trained elsewhere, and each call carries it on."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import campaign as rounds
from flows.campaign import Underway, campaign
from flows.train import train_round
from storage.home import Home
from tests.campaigns import TRAINING, small_preset, without_pages
from tests.world import World, make_world


@pytest.fixture
def world(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    without_pages(monkeypatch)
    return make_world(home, tmp_path, monkeypatch)


def test_what_goes_from_round_to_round() -> None:
    start = Underway("corpus", ("base",))
    later = start.after("v1", "one").after("v2", "two")
    assert (start.number, later.number) == (1, 3)
    assert (later.policies, later.versions) == (("base", "one", "two"), ("v1", "v2"))
    assert later.waiting_for is None


@pytest.mark.usefixtures("prefect_server")
def test_a_campaign_trained_elsewhere_waits_for_the_policy_and_goes_on_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, lines = world.home, list[str]()
    monkeypatch.setattr(rounds, "say", lines.append)
    preset = small_preset(world, "elsewhere", recipe="standard", tokens=256, rounds=1)
    preset = preset.model_copy(update={"campaign": preset.campaign.model_copy(update={"train": False})})
    waiting = campaign(str(home.path), preset)
    version = waiting.waiting_for
    assert version is not None
    assert [(record.version, record.next_policy) for record in waiting.campaign.rounds] == [(version, None)]
    assert not lines
    trained = train_round(str(home.path), version, world.policy, TRAINING, label="elsewhere", campaign="elsewhere")
    found = campaign(str(home.path), preset)
    assert found.waiting_for is None
    (record,) = found.campaign.rounds
    assert (record.round, record.version, record.next_policy) == (1, version, trained["policy"])
    assert record.figures["context_gain_before"] is not None
    assert "training_seconds" not in record.figures, "what was trained elsewhere was not timed here"
    assert [line.partition(":")[0] for line in lines] == ["round 1 of 1 is finished"]
