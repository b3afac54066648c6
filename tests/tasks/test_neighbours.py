"""KNN data: neighbours against brute force, and samples against a literal walk from document to document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.home import Home
from storage.vectors import IndexConfig
from tasks.samples.spans import Form
from tasks.whole_documents.document_order import RoundDocuments, TokenDocument
from tasks.whole_documents.neighbour_concatenation import (
    NeighbourConcatenationInputs,
    concatenate_neighbours,
    followed_by_neighbours,
)
from tasks.whole_documents.neighbours import KnnOptions, NeighbourInputs, documents_needed, find_neighbours, mean_vector
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
from tests.world import World, embed, make_world


@pytest.fixture
def world(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(home, tmp_path, monkeypatch)


def literal_neighbours(world: World, doc: int, wanted: int) -> list[tuple[int, int, float]]:
    """(document, rank of its first chunk, cosine) by comparing with every chunk of the corpus."""
    own = [embed(chunk["text"]).astype(np.float64) for chunk in world.chunks if chunk["doc"] == doc]
    mean = np.sum(own, axis=0) / len(own)
    query = (mean / np.sqrt(np.sum(mean**2))).astype(np.float32).astype(np.float64)
    scored = []
    for row, chunk in enumerate(world.chunks):
        score = round(float(np.dot(query, embed(chunk["text"]).astype(np.float64))), 6)
        scored.append((-score, row, chunk["doc"]))
    found: list[tuple[int, int, float]] = []
    for rank, (score, _, other) in enumerate(sorted(scored)):
        if other != doc and other not in [document for document, _, _ in found]:
            found.append((other, rank, -score))
    return found[:wanted]


class LiteralWalk:
    """Token by token, one sample after the other."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.samples: list[list[int]] = []
        self.members: list[set[int]] = [set()]
        self.current: list[int] = list(form.bos)

    def is_full(self) -> bool:
        return len(self.current) == self.form.target

    def flush(self) -> None:
        self.samples.append(self.current)
        self.current = list(self.form.bos)
        self.members.append(set())

    def separate(self) -> bool:
        """Puts the separator; whether the sample ended there."""
        self.current += self.form.separator[: self.form.target - len(self.current)]
        if self.is_full():
            self.flush()
            return True
        return False

    def run(self, heads: Sequence[tuple[TokenDocument, Sequence[int]]], documents: list[TokenDocument]) -> None:
        whole: set[int] = set()
        for head, neighbours in heads:
            if head.row in whole:
                continue
            for token in head.ids.tolist():
                if self.is_full():
                    self.flush()
                self.current.append(token)
                self.members[-1].add(head.row)
            whole.add(head.row)
            ended = self.separate()
            for row in neighbours:
                if ended:
                    break
                if row in self.members[-1]:
                    continue
                tokens = documents[row].ids.tolist()
                room = self.form.target - len(self.current)
                self.current += tokens[:room]
                self.members[-1].add(row)
                if len(tokens) <= room:
                    whole.add(row)
                ended = self.separate()


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[TokenDocument], list[tuple[TokenDocument, list[int]]]]:
    documents = numbered_documents(draw(lengths))
    rows = range(len(documents))
    heads = draw(st.permutations(rows))[: draw(st.integers(1, len(documents)))]
    found = []
    for row in heads:
        others = [other for other in rows if other != row]
        nearest = draw(st.lists(st.sampled_from(others), unique=True, max_size=4)) if others else []
        found.append((documents[row], nearest))
    return documents, found


@given(graphs(), forms, st.one_of(st.none(), st.integers(1, 5)))
def test_samples_are_those_of_the_literal_walk(
    graph: tuple[list[TokenDocument], list[tuple[TokenDocument, list[int]]]], form: Form, wanted: int | None
) -> None:
    documents, heads = graph
    left: list[dict[str, Any]] = []
    samples = list(followed_by_neighbours(heads, lambda row: documents[row], form, wanted, left))
    walk = LiteralWalk(form)
    walk.run(heads, documents)
    assert [sample["input_ids"] for sample in samples] == walk.samples[:wanted]
    check_spans(samples, documents, form)
    for sample in samples:
        ids = [segment["doc_id"] for segment in sample["segments"]]
        assert len(set(ids)) == len(ids), "a document stands twice in a sample"
    if wanted is None:
        placed = {token for sample in samples for token in sample["input_ids"]}
        missing = sum(token not in placed for head, _ in heads for token in head.ids.tolist())
        assert missing <= sum(row["tokens"] for row in left if row["kind"] == "document"), "a head's token was lost"


def test_the_neighbours_are_those_of_brute_force(world: World) -> None:
    options = KnnOptions(neighbours=5)
    inputs = NeighbourInputs(**document_inputs(world), index=IndexConfig())
    rows = rows_of(world, find_neighbours.run(world.home, inputs, options)["neighbours"])
    order = literal_order(world, 1)
    assert list(dict.fromkeys(row["doc"] for row in rows)) == order
    for doc in order:
        found = [(row["neighbour"], row["rank"], row["score"]) for row in rows if row["doc"] == doc]
        expected = literal_neighbours(world, doc, options.neighbours)
        assert [pair[:2] for pair in found] == [pair[:2] for pair in expected]
        assert [score for _, _, score in found] == pytest.approx([score for _, _, score in expected], abs=1e-6)
    assert any(rank >= 5 for rank in (row["rank"] for row in rows)), "no document was passed over"
    assert any(row["neighbour"] not in order for row in rows), "neighbours come from the round alone"


def test_all_neighbours_there_are_can_be_asked_for(world: World) -> None:
    inputs = NeighbourInputs(**document_inputs(world), index=IndexConfig())
    rows = rows_of(world, find_neighbours.run(world.home, inputs, KnnOptions(neighbours=500))["neighbours"])
    screened = sum(document["part"] == "screen" for document in world.documents)
    assert len(rows) == len(literal_order(world, 1)) * (screened - 1)


def test_shards_are_the_whole(world: World) -> None:
    whole = NeighbourInputs(**document_inputs(world), index=IndexConfig())
    options = KnnOptions(neighbours=3)
    parts: list[dict[str, Any]] = []
    for first, stop in ((0, 4), (4, 9)):
        shard = whole.model_copy(update={"first": first, "stop": stop})
        parts += rows_of(world, find_neighbours.run(world.home, shard, options)["neighbours"])
    assert parts == rows_of(world, find_neighbours.run(world.home, whole, options)["neighbours"])


def test_a_rounds_samples_are_those_of_the_literal_walk(world: World) -> None:
    options = KnnOptions(neighbours=2)
    form = Form(128, (), tuple(tokenise(world, SEPARATOR)))
    all_tokens = [tokenise(world, document["text"]) for document in world.documents]
    documents = [
        TokenDocument(row, document["doc_id"], np.asarray(ids, np.int32))
        for row, (document, ids) in enumerate(zip(world.documents, all_tokens, strict=True))
    ]
    for number in (1, 2):
        fields = document_inputs(world, round=number)
        found = find_neighbours.run(world.home, NeighbourInputs(**fields, index=IndexConfig()), options)
        inputs = NeighbourConcatenationInputs(**fields, neighbours=(found["neighbours"],))
        samples = rows_of(world, concatenate_neighbours.run(world.home, inputs, options)["samples"])
        heads = [
            (documents[doc], [other for other, _, _ in literal_neighbours(world, doc, 2)])
            for doc in literal_order(world, number)
        ]
        walk = LiteralWalk(form)
        walk.run(heads, documents)
        assert [sample["input_ids"] for sample in samples] == walk.samples
        assert len(samples) >= 5


def test_no_more_documents_are_looked_up_than_a_budget_can_need(world: World) -> None:
    options = KnnOptions(neighbours=2)
    fields = document_inputs(world, samples=2)
    inputs = NeighbourInputs(**fields, index=IndexConfig())
    needed = documents_needed(RoundDocuments.open(world.home, inputs, options.seed))
    assert needed < len(literal_order(world, 1))
    found = find_neighbours.run(world.home, inputs, options)["neighbours"]
    assert {row["doc"] for row in rows_of(world, found)} == set(literal_order(world, 1)[:needed])
    limited = NeighbourConcatenationInputs(**fields, neighbours=(found,))
    every = find_neighbours.run(
        world.home, NeighbourInputs(**document_inputs(world), index=IndexConfig()), options
    )["neighbours"]  # fmt: skip
    full = NeighbourConcatenationInputs(**fields, neighbours=(every,))
    samples = [rows_of(world, concatenate_neighbours.run(world.home, i, options)["samples"]) for i in (limited, full)]
    assert samples[0] == samples[1]
    assert len(samples[0]) == 2


def test_the_mean_of_opposite_vectors_is_no_division_by_zero() -> None:
    vectors = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
    assert mean_vector(vectors).tolist() == [0.0, 0.0]
    assert np.linalg.norm(mean_vector(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32))) == pytest.approx(1.0)
