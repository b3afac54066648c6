"""Recipes: found by listing their folder, resolved into a configuration, refused when they are not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

import tasks.recipes
from storage.errors import ConfigError
from tasks.recipes import all_recipes, recipe_named, resolved
from tasks.rounds.building import BuildConfig
from tasks.rounds.recipe import Recipe
from tasks.rounds.screeners import screener_of

POLICIES = ["base", "first", "second"]


def test_every_method_and_control_is_there() -> None:
    assert {
        "policylong", "entropylong", "nextlong", "untie-the-knots", "knn", "standard",
        "static-positives", "static-with-negatives", "refreshed-positives", "random-filler", "static-late", "yoked",
    } <= set(all_recipes())  # fmt: skip


@pytest.mark.parametrize("name", sorted(all_recipes()))
def test_a_recipe_fixes_only_settings_that_exist(name: str) -> None:
    recipe = recipe_named(name)
    config, options = resolved(BuildConfig(recipe=name))
    assert BuildConfig.model_validate(config.model_dump()) == config
    assert isinstance(options, recipe.options)
    for section, fields in recipe.settings.items():
        assert set(fields) <= set(type(getattr(config, section)).model_fields)
        for key, value in fields.items():
            assert getattr(getattr(config, section), key) == value
    assert set(recipe.sections) <= set(BuildConfig.model_fields)
    assert len({step.name for step in recipe.steps}) == len(recipe.steps)


def test_an_unknown_recipe_or_option_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="unknown recipe 'alchemy'") as refused:
        recipe_named("alchemy")
    assert "policylong" in refused.value.hint
    with pytest.raises(ConfigError, match=r"build.options.depth of recipe policylong"):
        resolved(BuildConfig(options={"depth": 3}))


def test_a_new_recipe_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tenth.py").write_text(
        "from pydantic import BaseModel\n"
        "from tasks.rounds.recipe import Recipe\n"
        "from tasks.stages.screened import ASSEMBLY, NEGATIVES, SCREENING\n"
        "class Options(BaseModel):\n"
        "    width: int = 3\n"
        "RECIPE = Recipe(name='tenth', source='here', summary='a trial', stages=(*SCREENING, NEGATIVES, ASSEMBLY),\n"
        "                screener='current', sections=(), settings={'entropy': {'alpha': 1.5}}, options=Options)\n"
    )
    monkeypatch.setattr(tasks.recipes, "__path__", [*tasks.recipes.__path__, str(tmp_path)])
    all_recipes.cache_clear()
    try:
        config, options = resolved(BuildConfig(recipe="tenth"))
        assert config.entropy.alpha == 1.5
        assert config.options == {"width": 3}
        assert type(options).__name__ == "Options"
    finally:
        monkeypatch.undo()
        all_recipes.cache_clear()
    assert "tenth" not in all_recipes()


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    width: int = Field(3, ge=1)


def recipe(screener: str) -> Recipe:
    return Recipe("r", "", "", (), screener, ())  # type: ignore[arg-type]


def test_who_screens() -> None:
    assert [screener_of(recipe("current"), POLICIES, n, 0, ()) for n in (1, 2, 3)] == POLICIES
    assert [screener_of(recipe("current"), POLICIES, n, 1, ()) for n in (1, 2, 3)] == ["base", "base", "first"]
    assert [screener_of(recipe("base"), POLICIES, n, 0, ()) for n in (1, 2, 3)] == ["base"] * 3
    assert [screener_of(recipe("none"), POLICIES, n, 0, ()) for n in (1, 2, 3)] == ["base"] * 3
    assert [screener_of(recipe("given"), POLICIES, n, 0, ["late"]) for n in (1, 2, 3)] == ["late"] * 3
    assert [screener_of(recipe("given"), POLICIES, n, 0, ["a", "b", "c"]) for n in (1, 2, 3)] == ["a", "b", "c"]


def test_a_given_screener_is_wanted_or_refused() -> None:
    with pytest.raises(ConfigError, match="none is given"):
        screener_of(recipe("given"), POLICIES, 1, 0, ())
    with pytest.raises(ConfigError, match="round 3 has none"):
        screener_of(recipe("given"), POLICIES, 3, 0, ["a", "b"])
    with pytest.raises(ConfigError, match="chooses its screener itself"):
        screener_of(recipe("current"), POLICIES, 1, 0, ["late"])
