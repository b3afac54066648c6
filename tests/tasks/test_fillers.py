"""Fillers: random chunks under the candidates' rules, and samples that stay inside a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.embedders import EmbedderConfig
from storage.home import Home
from storage.tables import read_table
from storage.vectors import IndexConfig
from tasks.recipes import recipe_named, resolved
from tasks.resources import release
from tasks.rounds.building import policy_inputs
from tasks.rounds.round import Round
from tests.world import World, make_world


@pytest.fixture
def world(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The small world; steps run in this process, without Prefect."""

    def call(step: Any, home: Home, inputs: Any, config: Any, *, label: str) -> Any:
        return step.run(home, inputs, config)

    monkeypatch.setattr("tasks.checkpointed.Step.__call__", call)
    monkeypatch.setattr(
        "tasks.checkpointed.Step.submit", lambda step, *args, label, runner=None: lambda: call(step, *args, label=label)
    )
    return make_world(home, tmp_path / "scratch", monkeypatch)


def tables(world: World, recipe: str, **changes: Any) -> dict[str, list[dict[str, Any]]]:
    """A round's tables as lists of rows."""
    config, options = resolved(world.config.model_copy(update={"recipe": recipe, **changes}))
    this = Round(
        home=world.home, number=1, config=config, options=options, corpus=world.corpus, embedder=EmbedderConfig(),
        policy=policy_inputs(world.policy, world.folder, config.numeric), index=IndexConfig(),
    )  # fmt: skip
    for stage in recipe_named(recipe).stages:
        stage.run(this)
    release()
    return {
        name: [row for ref in refs for row in read_table(world.home.path, ref).to_dicts()]
        for name, refs in this.tables.items()
    }


def kinds(found: dict[str, list[dict[str, Any]]]) -> dict[str, int]:
    """Tokens by kind of segment."""
    counts: dict[str, int] = {}
    for sample in found["samples"]:
        for segment in sample["segments"]:
            counts[segment["kind"]] = counts.get(segment["kind"], 0) + segment["end"] - segment["start"]
    return counts


def test_fillers_are_random_chunks_that_may_stand_there(world: World) -> None:
    found = tables(world, "random-filler")
    positives = {(row["root"], row["chunk"]) for row in found["verdicts"] if row["kept"]}
    assert {(row["root"], row["seed_chunk"]) for row in found["negatives"]} <= positives
    for row in found["negatives"]:
        own = world.chunks[row["chunk"]]["doc"] == found["roots"][row["root"]]["doc"]
        expected = "positive" if (row["root"], row["chunk"]) in positives else "root-document" if own else None
        assert row["reason"] in (expected, "copy")
        assert row["kept"] == (row["reason"] is None)
        assert row["score"] is None
    assert {row["reason"] for row in found["negatives"]} >= {None, "positive", "root-document"}
    assert set(kinds(found)) == {"root", "positive", "filler"}
    assert len({row["chunk"] for row in found["negatives"]}) > 10, "the draw is not random"


def test_positives_alone_are_topped_up_with_random_chunks_only(world: World) -> None:
    with_fillers, alone = kinds(tables(world, "random-filler")), kinds(tables(world, "refreshed-positives"))
    assert alone["filler"] / sum(alone.values()) < with_fillers["filler"] / sum(with_fillers.values())
    assert alone["positive"] / sum(alone.values()) > with_fillers["positive"] / sum(with_fillers.values())


def test_a_budget_is_kept_and_what_it_leaves_is_reported(world: World) -> None:
    target = world.config.assembly.target_tokens
    whole, cut = tables(world, "policylong"), tables(world, "policylong", tokens=2 * target + 5)
    assert len(whole["samples"]) > 2
    assert [row["sample_id"] for row in cut["samples"]] == [row["sample_id"] for row in whole["samples"][:2]]
    positives = {(row["root"], row["chunk"]) for row in cut["verdicts"] if row["kept"] and row["root"] >= 2}
    placed = {
        (dependency["root_id"], dependency["chunk_id"])
        for sample in cut["samples"]
        for dependency in sample["dependencies"]
    }
    reported = {(row["root"], row["chunk"]) for row in cut["unplaced"] if row["kind"] == "positive"}
    root_id = {row["root_id"]: number for number, row in enumerate(cut["roots"])}
    chunk_id = {chunk["chunk_id"]: number for number, chunk in enumerate(world.chunks)}
    assert {(root_id[r], chunk_id[c]) for r, c in placed} | reported == positives
    assert "budget" in {row["reason"] for row in cut["unplaced"]}
