"""Campaign records: carrying on, refusing a changed configuration, and the round numbers people type."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.campaigns import (
    RoundRecord,
    current_name,
    differing_keys,
    list_campaigns,
    load_campaign,
    record_round,
    round_version,
    start_campaign,
)
from storage.errors import ConfigError, InputError, IntegrityError
from storage.home import Home

V1, V2, P1, P2 = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
CONFIG = {"campaign": {"rounds": 3, "seed": 7}, "entropy": {"alpha": 2.0}}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def test_a_campaign_carries_on_with_the_same_configuration(home: Home) -> None:
    start_campaign(home, "quickstart", CONFIG)
    record_round(home, "quickstart", RoundRecord(round=1, version=V1, policy=P1))
    assert start_campaign(home, "quickstart", CONFIG).rounds[0].version == V1


def test_another_configuration_is_refused_and_every_differing_key_is_named(home: Home) -> None:
    start_campaign(home, "quickstart", CONFIG)
    changed = {"campaign": {"rounds": 4, "seed": 7}, "entropy": {"alpha": 2.0, "min_context": 0}}
    with pytest.raises(ConfigError) as caught:
        start_campaign(home, "quickstart", changed)
    assert "campaign.rounds: 3 → 4" in caught.value.message
    assert "entropy.min_context: nothing → 0" in caught.value.message
    assert "seed" not in caught.value.message
    assert load_campaign(home, "quickstart").config == CONFIG


def test_differing_keys_sees_a_changed_type_and_a_replaced_section() -> None:
    assert differing_keys({"a": 1}, {"a": True}) == ["a: 1 → True"]
    assert differing_keys({"a": {"b": 1}}, {"a": None}) == ["a: {'b': 1} → None"]
    assert differing_keys({"a": [1, 2]}, {"a": [1, 2]}) == []


def test_a_round_number_means_the_current_campaign(home: Home) -> None:
    for name, version in (("first", V1), ("second", V2)):
        start_campaign(home, name, CONFIG)
        record_round(home, name, RoundRecord(round=1, version=version, policy=P1))
    assert current_name(home) == "second"
    assert round_version(home, 1) == V2
    assert round_version(home, 1, "first") == V1
    assert list_campaigns(home) == ["first", "second"]
    start_campaign(home, "first", CONFIG)
    assert round_version(home, 1) == V1


def test_what_is_known_of_a_round_grows_and_nothing_is_forgotten(home: Home) -> None:
    start_campaign(home, "q", CONFIG)
    record_round(home, "q", RoundRecord(round=2, version=V2, policy=P2))
    record_round(home, "q", RoundRecord(round=1, version=V1, policy=P1, figures={"kept": 3}))
    record_round(home, "q", RoundRecord(round=1, version=V1, policy=P1, next_policy=P2, figures={"seconds": 1.5}))
    record_round(home, "q", RoundRecord(round=1, version=V1, policy=P1, figures={"kept": 4}))
    first, second = load_campaign(home).rounds
    assert (first.round, second.round) == (1, 2)
    assert first.next_policy == P2
    assert first.figures == {"kept": 4, "seconds": 1.5}


def test_a_recorded_round_never_becomes_another_version(home: Home) -> None:
    start_campaign(home, "q", CONFIG)
    record_round(home, "q", RoundRecord(round=1, version=V1, policy=P1))
    with pytest.raises(IntegrityError, match="round 1 of campaign 'q' is version aaaaaaaaaaaa"):
        record_round(home, "q", RoundRecord(round=1, version=V2, policy=P1))
    assert load_campaign(home, "q").rounds[0].version == V1


def test_unknown_names_and_rounds_say_what_there_is(home: Home) -> None:
    with pytest.raises(InputError, match="no campaign in"):
        load_campaign(home)
    start_campaign(home, "q", CONFIG)
    with pytest.raises(InputError, match="known: q"):
        load_campaign(home, "p")
    with pytest.raises(InputError, match=r"no round 2 \(finished: none"):
        round_version(home, 2)
    for name in ("../escape", "", "a/b", ".hidden"):
        with pytest.raises(ConfigError, match="can't name a campaign"):
            start_campaign(home, name, CONFIG)


def test_a_damaged_record_is_named(home: Home) -> None:
    start_campaign(home, "q", CONFIG)
    (home / "campaigns/q.json").write_text('{"name": "q"}')
    with pytest.raises(IntegrityError, match=r"campaigns/q\.json"):
        load_campaign(home, "q")
