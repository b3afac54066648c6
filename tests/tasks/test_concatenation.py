"""Standard data is the documents' tokens in a row, in random order, cut into samples; nothing is lost but the tail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import InputError
from storage.home import Home
from tasks.samples.spans import Form
from tasks.whole_documents.concatenation import ConcatenationInputs, StandardOptions, concatenate, concatenated
from tests.document_steps import (
    SEPARATOR,
    check_spans,
    document_inputs,
    forms,
    lengths,
    literal_order,
    numbered_documents,
    rows_of,
    tokenise,
)
from tests.world import World, make_world


def literal_samples(documents: list[list[int]], form: Form) -> list[list[int]]:
    """Token by token: a separator after every document, a new sample when one is full, its BOS first."""
    samples: list[list[int]] = []
    current = list(form.bos)
    for document in documents:
        for token in document:
            if len(current) == form.target:
                samples.append(current)
                current = list(form.bos)
            current.append(token)
        current += form.separator[: form.target - len(current)]
    return [*samples, current] if len(current) == form.target else samples


@given(lengths, forms, st.one_of(st.none(), st.integers(1, 5)))
def test_samples_are_the_documents_in_a_row(lengths: list[int], form: Form, wanted: int | None) -> None:
    documents = numbered_documents(lengths)
    left: list[dict[str, Any]] = []
    samples = list(concatenated(documents, form, wanted, left))
    expected = literal_samples([document.ids.tolist() for document in documents], form)
    assert [sample["input_ids"] for sample in samples] == expected[:wanted]
    check_spans(samples, documents, form)
    placed = [token for sample in samples for token in sample["input_ids"] if token >= 1000]
    assert len(set(placed)) == len(placed), "a token stands twice"
    if wanted is None or len(expected) < wanted:
        assert len(placed) + sum(row["tokens"] for row in left) == sum(lengths), "a token was lost"
        assert {row["reason"] for row in left} <= {"sample-not-filled"}
    else:
        assert {row["reason"] for row in left} <= {"budget"}
        assert placed == list(range(1000, 1000 + len(placed)))


@pytest.fixture
def world(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(home, tmp_path, monkeypatch)


def test_a_rounds_samples_are_the_literal_ones_and_rounds_are_disjoint(world: World) -> None:
    seen: set[str] = set()
    for number in (1, 2):
        refs = concatenate.run(
            world.home, ConcatenationInputs(**document_inputs(world, round=number)), StandardOptions()
        )
        samples, left = rows_of(world, refs["samples"]), rows_of(world, refs["unplaced"])
        order = literal_order(world, number)
        documents = [tokenise(world, world.documents[row]["text"]) for row in order]
        form = Form(128, (), tuple(tokenise(world, SEPARATOR)))
        assert [sample["input_ids"] for sample in samples] == literal_samples(documents, form)
        assert len(samples) >= 3
        ids = {segment["doc_id"] for sample in samples for segment in sample["segments"]}
        assert ids <= {world.documents[row]["doc_id"] for row in order}
        assert not ids & seen
        seen |= ids
        assert {row["doc"] for row in left} <= set(order)
        assert all(row["root"] is None and row["kind"] == "document" for row in left)
        assert all(sample["dependencies"] == [] for sample in samples)


def test_another_seed_gives_another_order(world: World) -> None:
    inputs = ConcatenationInputs(**document_inputs(world))
    first, second = (
        [
            sample["segments"][0]["doc_id"]
            for sample in rows_of(world, concatenate.run(world.home, inputs, o)["samples"])
        ]
        for o in (StandardOptions(), StandardOptions(seed=1))
    )
    assert first != second
    assert second[0] == world.documents[literal_order(world, 1, seed=1)[0]]["doc_id"]


def test_a_budget_is_kept_and_one_that_cannot_be_filled_is_refused_before_anything_is_written(world: World) -> None:
    inputs = ConcatenationInputs(**document_inputs(world, samples=2))
    refs = concatenate.run(world.home, inputs, StandardOptions())
    assert refs["samples"].rows == 2
    assert {row["reason"] for row in rows_of(world, refs["unplaced"])} <= {"budget"}
    too_many = ConcatenationInputs(**document_inputs(world, samples=1000))
    with pytest.raises(InputError, match=r"round 1 of 2 has 9 documents of [\d,]+ bytes, .*: too few for 1000 samples"):
        concatenate.run(world.home, too_many, StandardOptions())
    assert not list(
        (world.home / "work/concatenation").glob(f"{concatenate.key(too_many, StandardOptions()).digest[:32]}*")
    )
    with pytest.raises(InputError, match="round 30 of 30 has no document"):
        concatenate.run(
            world.home, ConcatenationInputs(**document_inputs(world, round=30, rounds=30)), StandardOptions()
        )


def test_documents_are_read_a_wave_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = concatenate.run(world.home, ConcatenationInputs(**document_inputs(world)), StandardOptions())
    monkeypatch.setattr("tasks.whole_documents.document_order.WAVE_BYTES", 300)
    inputs = ConcatenationInputs(**document_inputs(world, tokenizer="b" * 64))
    assert concatenate.run(world.home, inputs, StandardOptions())["samples"].sha256 == whole["samples"].sha256
