"""Every default says whose it is, in one grammar, with a section that the method page has."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from deploy.checks import method_defaults
from models.training import TrainingConfig
from tasks.planning.yields import PlanConfig
from tasks.recipes import all_recipes
from tasks.rounds.building import BuildConfig
from tasks.rounds.marks import SECTIONS, Mark, Option, options_of, read_mark

OPTIONS = [*method_defaults.marked_options(), *options_of(PlanConfig, "plan")]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.path)
def test_every_default_has_a_mark(option: Option) -> None:
    assert option.mark is not None, f"{option.path}: {option.meaning!r} has no mark of an existing section at its end"
    assert option.meaning, option.path
    assert not re.search(r"\b(Ours|Paper|Inferred)\b", option.meaning), f"{option.path}: the mark is in the text too"


def test_the_page_has_every_section_under_its_title() -> None:
    page = method_defaults.PAGE.read_text(encoding="utf-8")
    headings = dict(re.findall(r"^#{2,3} (\d(?:\.\d)?)\.? (.+)$", page, re.M))
    assert headings == SECTIONS


def test_the_page_has_every_default_as_it_is() -> None:
    page = method_defaults.PAGE.read_text(encoding="utf-8")
    assert method_defaults.shown(page) == method_defaults.table(), "run: python deploy/checks/method_defaults.py"


def test_the_page_names_every_recipe() -> None:
    page = method_defaults.PAGE.read_text(encoding="utf-8")
    assert {name for name in all_recipes() if f"`{name}`" not in page} == set()


@pytest.mark.parametrize(
    ("path", "mark", "default"),
    [
        ("build.entropy.alpha", Mark("paper", "2.2"), 2.0),
        ("build.entropy.query_radius", Mark("paper", "2.3"), 16),
        ("build.retrieval.top_k", Mark("paper", "2.4"), 32),
        ("build.verification.epsilon", Mark("paper", "2.5"), 0.4),
        ("build.verification.separator", Mark("inferred", "2.7"), "\n\n"),
        ("build.negatives.negatives_per_positive", Mark("ours", "2.6"), 1),
        ("build.entropy.min_context", Mark("ours", "2.2"), 16),
        ("build.rounds", Mark("paper", "2.9"), 4),
        ("build.assembly.target_tokens", Mark("paper", "4"), 131_072),
        ("training.learning_rate", Mark("paper", "4"), 4e-5),
        ("training.warmup", Mark("paper", "4"), 0.2),
        ("training.extension.rope_theta", Mark("ours", "4"), None),
    ],
)
def test_what_the_method_says_of_the_defaults_that_matter(path: str, mark: Mark, default: Any) -> None:
    found = {option.path: option for option in OPTIONS}[path]
    assert (found.mark, found.default) == (mark, default)


def test_a_group_of_thirty_two_samples_makes_a_step() -> None:
    config = TrainingConfig()
    assert config.batch * config.accumulation * BuildConfig().assembly.target_tokens == 4_194_304  # 4.19M, METHOD 4


@pytest.mark.parametrize(
    "description",
    [
        "Longest root.",
        "Longest root. [ours]",
        "Longest root. [ours 2.5].",
        "Longest root. [theirs 2.5]",
        "Longest root. [ours 2.55]",
        "Longest root. [ours 7]",
        "Longest root. [ours 2.5] ",
        "Longest root.[ours 2.5]",
        "[ours 2.5]",
        "Longest root [tokens]. [ours 2.5]",
        "Longest root. [paper 2.4] [ours 2.5]",
        "Longest root. [Ours 2.5]",
    ],
)
def test_the_grammar_is_strict(description: str) -> None:
    assert read_mark(description) == (description, None)


@given(
    st.text(st.characters(blacklist_characters="[]", blacklist_categories=("Cs",)), min_size=1).map(
        lambda text: f"{text}."
    ),
    st.sampled_from(["paper", "inferred", "ours"]),
    st.sampled_from(sorted(SECTIONS)),
)
def test_a_mark_is_read_back(text: str, kind: Any, section: str) -> None:
    assert read_mark(f"{text} [{kind} {section}]") == (text, Mark(kind, section))


class _Inner(BaseModel):
    depth: int = Field(3, description="How deep. [ours 2.6]")


class _Outer(BaseModel):
    inner: _Inner = _Inner()
    made: _Inner = Field(default_factory=lambda: _Inner(depth=4), description="Another.")
    plain: int = Field(1, description="No mark.")
    must: str = Field(description="No default. [paper 3]")


def test_options_are_found_in_sections_and_a_missing_mark_shows() -> None:
    found = list(options_of(_Outer, "x"))
    assert [(option.path, option.meaning, option.mark and str(option.mark)) for option in found] == [
        ("x.inner.depth", "How deep.", "ours 2.6"),
        ("x.made.depth", "How deep.", "ours 2.6"),
        ("x.plain", "No mark.", None),
        ("x.must", "No default.", "paper 3"),
    ]
    assert [option.default for option in found[:3]] == [3, 4, 1]
    given = _Outer(must="", plain=7)
    assert [option.default for option in options_of(_Outer, "x", given)] == [3, 4, 7, ""]
