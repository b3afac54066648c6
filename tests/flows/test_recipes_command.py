"""``policylong recipes``: every method, what it does, and whose each default is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli import main
from flows.presets import load_preset
from tasks.recipes import all_recipes, recipe_named
from tasks.rounds.marks import SECTIONS


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["recipes", *words]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out


def facts(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(told(capsys, *words, "--json"))


def test_the_list_has_methods_and_controls_apart(capsys: pytest.CaptureFixture[str]) -> None:
    page = told(capsys)
    methods, controls = page.split("controls")[0], page.split("controls", 1)[1]
    for recipe in all_recipes().values():
        assert recipe.name in (controls if recipe.is_control else methods)
        assert recipe.name not in (methods if recipe.is_control else "").split()


def test_the_list_as_json_is_what_each_recipe_says_of_itself(capsys: pytest.CaptureFixture[str]) -> None:
    listed = facts(capsys)
    assert [entry["name"] for entry in listed] == list(all_recipes())
    for entry in listed:
        recipe = recipe_named(entry["name"])
        assert (entry["summary"], entry["control"], entry["screener"]) == (
            recipe.summary,
            recipe.is_control,
            recipe.screener,
        )
        assert [stage["name"] for stage in entry["stages"]] == [stage.name for stage in recipe.stages]
        assert {step for stage in entry["stages"] for step in stage["steps"]} == {step.name for step in recipe.steps}


@pytest.mark.parametrize("name", sorted(all_recipes()))
def test_every_default_of_a_recipe_is_told_with_its_mark_and_can_be_set_so(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = facts(capsys, name)
    preset: dict[str, Any] = {"corpus": "world", "build": {"recipe": name}}
    for default in found["defaults"]:
        assert default["mark"] in ("paper", "inferred", "ours"), default["option"]
        assert default["section"] in SECTIONS
        *parents, last = default["option"].split(".")
        place = preset
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = default["value"]
    (tmp_path / "as-shown.yaml").write_text(yaml.safe_dump(preset))
    loaded = load_preset(str(tmp_path / "as-shown.yaml"))
    assert loaded.build.model_dump(exclude={"options"})["recipe"] == name
    paths = [default["option"] for default in found["defaults"]]
    assert len(paths) == len(set(paths))
    for section in recipe_named(name).sections:
        assert any(path.startswith(f"build.{section}") for path in paths), section


def test_what_a_recipe_fixes_is_shown_as_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    fixed = {d["option"]: d["value"] for d in facts(capsys, "entropylong")["defaults"] if d["by_recipe"]}
    assert fixed == {"build.negatives.negatives_per_positive": 0}
    assert not any(default["by_recipe"] for default in facts(capsys, "policylong")["defaults"])


def test_the_page_of_a_recipe_has_stages_values_and_marks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    page = told(capsys, "policylong")
    rows = {line.split()[0]: line.split()[1:4] for line in page.splitlines() if line.startswith("build.")}
    assert rows["build.retrieval.top_k"] == ["32", "paper", "2.4"]
    assert rows["build.verification.separator"] == [r'"\n\n"', "inferred", "2.7"]
    assert rows["build.negatives.depth"] == ["16", "ours", "2.6"]
    for stage in recipe_named("policylong").stages:
        assert stage.summary in page


def test_an_unknown_recipe_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "alchemy"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        f"error: unknown recipe 'alchemy' (build.recipe). Recipes: {', '.join(all_recipes())}."
    ]
