"""What a comparison is made of and how it is summed up, without training anything."""

from __future__ import annotations

import statistics
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from models.training import TrainingConfig
from storage.campaigns import RoundRecord, differing_keys
from storage.errors import ConfigError
from storage.schemas import SAMPLES
from tasks.comparison.arms import (
    DONATIONS,
    Arm,
    ComparisonConfig,
    Filled,
    all_recipes_of,
    arm_build,
    arm_training,
    check_filled,
    check_options,
    planned_arms,
    screeners_of,
)
from tasks.comparison.result import KINDS, spread_of, token_shares, unique_share
from tasks.recipes import all_recipes
from tasks.rounds.building import BuildConfig
from tasks.rounds.recipe import Recipe
from tasks.samples.assembly import AssemblyConfig

SMALL = BuildConfig(assembly=AssemblyConfig(target_tokens=128))


def config(*recipes: str, seeds: int = 2) -> ComparisonConfig:
    return ComparisonConfig(recipes=recipes, seeds=seeds)


@given(st.sets(st.sampled_from([*DONATIONS, "policylong", "entropylong", "random-filler"]), min_size=1), st.data())
def test_every_recipe_runs_with_every_seed_and_donors_run_first(recipes: set[str], data: st.DataObject) -> None:
    chosen = config(*data.draw(st.permutations(sorted(recipes))), seeds=data.draw(st.integers(2, 4)))
    arms = planned_arms(chosen)
    wanted = recipes | ({"policylong"} if recipes & {*DONATIONS} else set())
    assert sorted(arms, key=str) == sorted((Arm(r, s) for r in wanted for s in range(chosen.seeds)), key=str)
    for place, arm in enumerate(arms):
        if arm.recipe in DONATIONS:
            donor = DONATIONS[arm.recipe].donor(arm.seed, chosen.seeds)
            assert donor in arms[:place]
            assert donor.seed == (arm.seed if arm.recipe == "static-late" else (arm.seed + 1) % chosen.seeds)
    assert all_recipes_of(chosen)[: len(recipes)] == chosen.recipes


def test_static_late_takes_the_last_policy_of_its_seed_and_yoked_those_that_screened_the_next() -> None:
    def record(number: int, screened: str, gave: str) -> RoundRecord:
        return RoundRecord(round=number, version="0" * 64, policy=screened, next_policy=gave)

    rounds = {
        Arm("policylong", seed): [record(1, "base", f"one-{seed}"), record(2, f"one-{seed}", f"two-{seed}")]
        for seed in range(3)
    }
    assert screeners_of(Arm("static-late", 1), 3, rounds) == ("two-1",)
    assert screeners_of(Arm("yoked", 1), 3, rounds) == ("base", "one-2")
    assert screeners_of(Arm("yoked", 2), 3, rounds) == ("base", "one-0")
    assert screeners_of(Arm("entropylong", 1), 3, rounds) == ()


@pytest.mark.parametrize("recipe", ["policylong", "entropylong", "yoked"])
def test_a_seed_changes_two_seeds_and_nothing_else(recipe: str) -> None:
    changes = differing_keys(
        arm_build(Arm(recipe, 0), SMALL, 1024).model_dump(mode="json"),
        arm_build(Arm(recipe, 2), SMALL, 1024).model_dump(mode="json"),
    )
    assert changes == ["assembly.seed: 0 → 2"]
    training = TrainingConfig(seed=5)
    changed = differing_keys(training.model_dump(mode="json"), arm_training(Arm(recipe, 2), training).model_dump())
    assert changed == ["seed: 5 → 7"]


def test_recipes_of_one_seed_differ_by_recipe_only() -> None:
    one, other = (arm_build(Arm(recipe, 1), SMALL, 1024) for recipe in ("policylong", "entropylong"))
    assert other.model_copy(update={"recipe": one.recipe}) == one
    assert one.tokens == 1024
    trainings = {arm_training(Arm(recipe, 1), TrainingConfig()) for recipe in ("policylong", "entropylong")}
    assert len(trainings) == 1


class Drawn(BaseModel):
    """Options of a recipe with draws of its own."""

    width: int = 4
    seed: int = 3


def test_a_recipe_s_own_seeds_move_with_the_arm_s_and_it_gets_only_options_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = all_recipes()
    drawn = Recipe("drawn", "ours", "", (), "none", (), options=Drawn)
    for module in ("tasks.comparison.arms", "tasks.recipes"):
        monkeypatch.setattr(f"{module}.recipe_named", lambda name: {**known, "drawn": drawn}[name])
    build = SMALL.model_copy(update={"options": {"width": 8, "shape": "round"}})
    assert arm_build(Arm("drawn", 0), build, 1024).options == {"width": 8, "seed": 3}
    assert arm_build(Arm("drawn", 2), build, 1024).options == {"width": 8, "seed": 5}
    assert arm_build(Arm("policylong", 2), build, 1024).options == {}
    check_options(config("policylong", "drawn"), {"width": 8})
    with pytest.raises(ConfigError, match=r"build\.options\.shape: none of the compared recipes has it"):
        check_options(config("policylong", "drawn"), {"width": 8, "shape": "round"})


def test_what_can_not_be_compared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="unknown recipe 'alchemy'"):
        planned_arms(config("policylong", "alchemy"))
    with pytest.raises(ConfigError, match="screened by the policies of another seed, and --seeds is 1"):
        planned_arms(config("yoked", seeds=1))
    assert planned_arms(config("static-late", seeds=1)) == (Arm("policylong", 0), Arm("static-late", 0))
    with pytest.raises(ValidationError, match="policylong stands there more than once"):
        config("policylong", "policylong")
    with pytest.raises(ValidationError, match="pattern"):
        ComparisonConfig(name="../elsewhere", recipes=("policylong",))
    guided = Recipe("guided", "ours", "", (), "given", ())
    monkeypatch.setattr("tasks.comparison.arms.recipe_named", lambda name: guided)
    with pytest.raises(ConfigError, match="does not know by which"):
        planned_arms(config("guided"))


def test_a_budget_that_is_not_filled_names_the_round_and_one_that_all_can_fill() -> None:
    build = SMALL.model_copy(update={"tokens": 1100})
    made = [Filled("c-policylong-s0", 1, 1024), Filled("c-entropylong-s0", 1, 640), Filled("c-entropylong-s0", 2, 768)]
    check_filled(made[:1], build)
    with pytest.raises(ConfigError, match=r"round 1 of c-entropylong-s0 made 640 .* budget is 1,024: .* --tokens 640;"):
        check_filled(made, build)
    with pytest.raises(ConfigError, match=r"made 0 tokens .* Raise build\.roots\.roots_per_round"):
        check_filled([*made, Filled("c-yoked-s0", 1, 0)], build)


SEGMENTS = st.lists(
    st.tuples(
        st.sampled_from(["root", "positive", "negative", "filler", "document", "tag"]),
        st.integers(0, 3),
        st.integers(0, 12),
        st.integers(1, 9),
    ),
    max_size=12,
)


@given(st.lists(SEGMENTS, min_size=1, max_size=4))
def test_unique_tokens_are_the_different_pairs_of_origin_and_place(samples: list[Any]) -> None:
    rows, seen, total = [], set(), 0
    for number, spans in enumerate(samples):
        segments, at = [], 0
        for kind, origin, first, tokens in spans:
            root, chunk = kind == "root", kind in ("positive", "negative", "filler")
            segments.append(
                {
                    "kind": kind,
                    "root_id": f"root {origin}" if root else None,
                    "chunk_id": f"chunk {origin}" if chunk else None,
                    "doc_id": f"document {origin}",
                    "start": at,
                    "end": at + tokens,
                    "source_start": first,
                }
            )
            at += tokens + 2
            if kind == "tag":
                continue
            total += tokens
            place = "root" if root else "chunk" if chunk else "document"
            seen |= {(place, origin, first + token) for token in range(tokens)}
        rows.append(
            {
                "sample_id": str(number),
                "input_ids": [0] * at,
                "length": at,
                "segments": segments,
                "dependencies": [],
            }
        )
    frame = pl.from_arrow(SAMPLES.arrow.empty_table())
    assert isinstance(frame, pl.DataFrame)
    found = unique_share(pl.DataFrame(rows, schema=frame.schema).lazy())
    assert found == (pytest.approx(len(seen) / total) if total else None)


@given(st.lists(st.lists(st.integers(0, 1000), min_size=7, max_size=7), min_size=1, max_size=4))
def test_shares_are_of_all_tokens_and_add_up_to_one(counts: list[list[int]]) -> None:
    names = [*KINDS, "separator", "tag"]
    rounds = [dict(zip(names, numbers, strict=True)) | {"total": sum(numbers)} for numbers in counts]
    shares = token_shares(rounds)
    total = sum(map(sum, counts))
    if total:
        assert sum(shares.values()) == pytest.approx(1)
        assert shares["negative"] == pytest.approx(sum(numbers["negative"] for numbers in rounds) / total)
        other = sum(numbers["separator"] + numbers["tag"] for numbers in rounds)
        assert shares["other"] == pytest.approx(other / total)
    without = token_shares([{"total": 10, "root": 4, "positive": 5, "separator": 1}])
    assert (without["document"], without["root"], without["other"]) == (0.0, 0.4, 0.1)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6))
def test_a_spread_is_a_range_and_from_three_on_a_deviation(values: list[float]) -> None:
    found = spread_of(values)
    assert found is not None
    assert (found.low, found.high) == (min(values), max(values))
    assert found.mean == pytest.approx(sum(values) / len(values), abs=1e-9)
    expected = statistics.stdev(values) if len(values) > 2 else None
    assert found.deviation == (None if expected is None else pytest.approx(expected, abs=1e-9))
    assert spread_of([*values, None]) is None
