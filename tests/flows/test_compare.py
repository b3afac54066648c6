"""A comparison: ordinary campaigns with everything but recipe and seed in common, carried on, shown as it is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flows import server
from flows.cli import main
from flows.compare import compare, plan, report_path
from flows.presets import Preset, load_preset
from storage.campaigns import load_campaign
from storage.errors import ConfigError, StoppedError
from storage.home import Home
from storage.manifests import Manifest
from storage.policies import list_policies, policy_record
from storage.versions import load_manifest
from tasks.audit.checks import audit_version
from tasks.comparison.arms import ComparisonConfig
from tasks.comparison.result import KINDS, Comparison
from tests.campaigns import small_preset, without_pages
from tests.tasks.test_comparison_report import compared
from tests.world import World, make_world


@pytest.fixture
def world(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    without_pages(monkeypatch)
    return make_world(home, tmp_path / "scratch", monkeypatch)


def events(home: Home, step: str) -> Counter[str]:
    """How often each piece of a step's work was finished."""
    lines = map(json.loads, (home / "journal.jsonl").read_text().splitlines())
    return Counter(line["key"] for line in lines if line["event"] == "finished" and line["step"] == step)


def rounds_of(home: Home, found: Comparison) -> dict[tuple[str, int], list[Manifest]]:
    return {(arm.recipe, arm.seed): [load_manifest(home, version) for version in arm.versions] for arm in found.arms}


@pytest.mark.usefixtures("prefect_server")
def test_arms_are_audited_campaigns_that_differ_by_recipe_and_seed_only_and_are_carried_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = world.home
    preset = small_preset(world, "preset", rounds=2, tokens=256)
    config = ComparisonConfig(name="trial", recipes=("yoked",), seeds=2)
    monkeypatch.setattr("flows.evaluate.measure_context_gain", stopped_after(3))
    with pytest.raises(StoppedError):
        compare(str(home.path), preset, config)
    trained = events(home, "train")
    assert len(trained) == 2, "base, then two rounds of the first arm"
    monkeypatch.undo()
    without_pages(monkeypatch)
    make_world(home, home.path.parent / "again", monkeypatch)

    found = compare(str(home.path), preset, config)
    assert (found.recipes, found.added, found.tokens) == (("yoked", "policylong"), ("policylong",), 256)
    assert [arm.campaign for arm in found.arms] == [f"trial-{r}-s{s}" for r in ("policylong", "yoked") for s in (0, 1)]
    done = events(home, "train")
    assert set(trained) < set(done)
    assert set(done.values()) == {1}, "no training is done twice"
    assert len(done) == 8
    assert sum(events(home, "context-gain").values()) == len(list_policies(home)), "each policy is measured once"

    rounds = rounds_of(home, found)
    everything = [manifest for manifests in rounds.values() for manifest in manifests]
    assert len({manifest.files["tables/roots-00000.parquet"].sha256 for manifest in everything}) == 1
    assert {manifest.tokens["total"] for manifest in everything} == {256}
    assert {arm.training_tokens for arm in found.arms} == {found.arms[0].training_tokens}
    for seed in (0, 1):
        other = load_campaign(home, f"trial-policylong-s{1 - seed}")
        screened = [manifest.policy for manifest in rounds["yoked", seed]]
        assert screened == [world.policy, other.rounds[0].next_policy]
        assert rounds["yoked", seed][1].relation == "given"
        own, yoked = (load_campaign(home, f"trial-{r}-s{seed}").config for r in ("policylong", "yoked"))
        assert own["training"] == yoked["training"] == {**own["training"], "seed": seed, "data_seed": 0}
        assert own["build"] == {**yoked["build"], "recipe": "policylong"}
        assert own["build"]["assembly"]["seed"] == seed
    one, two = (found.arms[n].policies[-1] for n in (0, 1))
    assert one != two, "a seed changes the policy"
    for arm in found.arms:
        report = audit_version(home, arm.versions[-1])
        assert not report.failures, [finding.line for finding in report.failures]

    for arm in found.arms:
        first, last = load_campaign(home, arm.campaign).rounds
        assert arm.context_gains == (first.figures["context_gain_after"], last.figures["context_gain_after"])
        assert first.figures["context_gain_before"] == found.base.gain
        assert arm.shares["root"] == sum(m.tokens["root"] for m in rounds[arm.recipe, arm.seed]) / 512
        assert sum(arm.shares[kind] for kind in (*KINDS, "other")) == pytest.approx(1)
        assert arm.unique_share is not None
        assert 0 < arm.unique_share <= 1
    page = report_path(home, "trial").read_text()
    assert "trial-yoked-s1" in page


def stopped_after(policies: int) -> object:
    """A measurement that is stopped when it has measured so many policies."""
    from flows.evaluate import measure_context_gain as measure

    measured: set[str] = set()

    def stop_or_measure(home_path: str, policy: str, *rest: Any) -> object:
        measured.add(policy)
        if len(measured) >= policies:
            raise StoppedError("stopped")
        return measure(home_path, policy, *rest)

    return stop_or_measure


@pytest.mark.usefixtures("prefect_server")
def test_a_budget_that_a_recipe_can_not_fill_stops_before_anything_is_trained(world: World) -> None:
    home = world.home
    few = world.config.retrieval.model_copy(update={"top_k": 2})
    preset = small_preset(world, "preset", rounds=1, retrieval=few)
    config = ComparisonConfig(name="large", recipes=("entropylong", "policylong"), seeds=1, tokens=896)
    with pytest.raises(ConfigError) as caught:
        compare(str(home.path), preset, config)
    made = {
        name: load_manifest(home, load_campaign(home, name).rounds[0].version).tokens["total"]
        for name in ("large-entropylong-s0", "large-policylong-s0")
    }
    least = min(made, key=lambda name: made[name])
    assert 0 < made[least] < 896
    assert f"round 1 of {least} made {made[least]:,} tokens" in str(caught.value)
    assert f"--tokens {made[least]};" in str(caught.value)
    assert not events(home, "train")
    assert [record.digest for record in list_policies(home)] == [policy_record(home, world.policy).digest]


def test_without_a_budget_the_line_says_what_a_round_of_the_preset_s_campaign_made(home: Home) -> None:
    from tests.rounds import build_rounds

    preset = load_preset("quickstart")
    config = ComparisonConfig(recipes=("policylong",))
    with pytest.raises(ConfigError, match=r"build\.tokens is null\. Give --tokens N, the tokens of every round"):
        plan(home, preset, config)
    built = build_rounds(home, 2)
    made = min(round.manifest.tokens["total"] for round in built)
    named = preset.model_copy(update={"campaign": preset.campaign.model_copy(update={"name": "world"})})
    with pytest.raises(ConfigError, match=rf"a round of campaign 'world' made {made:,} tokens or more"):
        plan(home, named, config)
    with_budget = named.model_copy(update={"build": preset.build.model_copy(update={"tokens": 4096})})
    assert plan(home, with_budget, config).tokens == 4096
    assert plan(home, with_budget, config.model_copy(update={"tokens": 2048})).tokens == 2048


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--recipes", "alchemy", "--tokens", "4096"], "unknown recipe 'alchemy'"),
        (["--recipes", "yoked", "--seeds", "1", "--tokens", "4096"], "Give --seeds 2 or more"),
        (["--recipes", "policylong"], "build.tokens is null. Give --tokens N"),
        (["--recipes", "policylong", "--tokens", "100"], "does not hold one sample of 2048"),
        (["--recipes", "policylong", "--seeds", "0"], "compare: seeds: Input should be greater"),
        (["--recipes", ","], "compare: recipes: "),
        (["--recipes", "policylong", "--name", "a b"], "compare: name: "),
        (["--recipes", "policylong", "--tokens", "4096", "--set", "campaign.train=false"], "campaign.train is false"),
        (["--recipes", "policylong", "--tokens", "4096", "--set", "campaign.screeners=[a]"], "campaign.screeners"),
    ],
)
def test_what_can_not_be_compared_is_one_line_before_any_work(
    words: list[str], told: str, home_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--home", str(home_path), "compare", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert told in shown.err
    assert not home_path.exists()


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_prints_tables_and_what_they_do_not_show_or_json(
    as_json: bool, home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = compared({"static-late": [0.12, 0.16], "policylong": [0.10, 0.11]})

    @contextmanager
    def no_server(_: Home) -> Iterator[str]:
        yield "http://127.0.0.1:4200/api"

    def given(home_path: str, preset: Preset, config: ComparisonConfig) -> Comparison:
        assert (config.recipes, config.seeds, config.tokens) == (("static-late",), 2, 4096)
        assert preset.build.rounds == 1
        return found

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(server, "prefect_server", no_server)
    monkeypatch.setattr("flows.compare.compare", given)
    words = [
        "--recipes",
        "static-late",
        "--tokens",
        "4096",
        "--set",
        "build.rounds=1",
        *(["--json"] if as_json else []),
    ]
    assert main(["--home", str(home.path), "compare", *words]) == 0
    shown = capsys.readouterr()
    assert "Recipe policylong is added" in shown.err
    assert "compare-compare.md" in shown.err.replace("\n", "")
    if as_json:
        assert Comparison.model_validate_json(shown.out) == found
        return
    assert "0.1400 (0.1200 … 0.1600)" in shown.out
    assert "What this does not show" in shown.out
    assert "2 seeds a recipe are few" in shown.out
