"""What documents give samples at most is never less than what a recipe makes of them, and counted from their texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from storage.errors import ConfigError, InputError
from storage.home import Home
from storage.vectors import IndexConfig
from tasks.recipes import all_recipes
from tasks.samples.spans import Form
from tasks.whole_documents import concatenation, knots, neighbours
from tasks.whole_documents.concatenation import StandardOptions, concatenated
from tasks.whole_documents.document_order import TokenDocument
from tasks.whole_documents.knots import KnotsInputs, KnotsOptions, knotted, tie_knots
from tasks.whole_documents.neighbour_concatenation import followed_by_neighbours
from tasks.whole_documents.neighbours import KnnOptions, NeighbourInputs, find_neighbours
from tasks.whole_documents.supply import Stock, largest_round
from tests.document_steps import document_inputs, forms, lengths, literal_order, numbered_documents
from tests.world import World, make_world


@pytest.fixture
def world(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(home, tmp_path, monkeypatch)


def bytewise(documents: list[TokenDocument]) -> Stock:
    """A round of all documents, each token a byte: as many tokens as there can be."""
    sizes = [len(document) for document in documents]
    return Stock(len(sizes), sum(sizes), len(sizes), sum(sizes), max(sizes))


@given(lengths, forms)
def test_documents_in_a_row_give_no_more(lengths: list[int], form: Form) -> None:
    documents = numbered_documents(lengths)
    made = len(list(concatenated(documents, form, None, [])))
    assert made * form.room <= concatenation.most_tokens(bytewise(documents), form, made, StandardOptions()).tokens


@given(lengths, forms, st.integers(1, 12))
def test_neighbours_give_no_more(lengths: list[int], form: Form, wanted: int) -> None:
    """Everybody's neighbours are the longest documents."""
    documents = numbered_documents(lengths)
    longest = sorted(documents, key=len, reverse=True)
    heads = [(d, [other.row for other in longest if other is not d][:wanted]) for d in reversed(longest)]
    made = len(list(followed_by_neighbours(heads, lambda row: documents[row], form, None, [])))
    most = neighbours.most_tokens(bytewise(documents), form, made, KnnOptions(neighbours=wanted))
    assert made * form.room <= most.tokens


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=5),
    st.builds(
        Form,
        target=st.integers(70, 1500),
        bos=st.sampled_from([(), (1,)]),
        separator=st.sampled_from([(), (2,), (2, 3, 4)]),
    ),
    st.builds(
        KnotsOptions,
        parts=st.integers(1, 5),
        least_part_tokens=st.integers(1, 20),
        documents=st.integers(1, 5),
        seed=st.integers(0, 3),
    ),
    st.sampled_from([2, 31]),
)
def test_knots_give_no_more(lengths: list[int], form: Form, options: KnotsOptions, tag: int) -> None:
    """With short tags and with the longest there can be."""
    documents = numbered_documents(lengths)
    try:
        made = len(list(knotted(documents, lambda doc_id, part: [9] * tag, form, options, None, [])))
    except ConfigError:
        assume(False)
    assert made * form.room <= knots.most_tokens(bytewise(documents), form, made, options).tokens


def test_knots_of_long_samples_give_little_more_than_their_documents() -> None:
    """Tags are a small part of samples as the papers have them, and a budget of twice the corpus is refused."""
    form = Form(131_072, (), (2, 3))
    stock = Stock(1000, 10_000_000, 1000, 10_000_000, 100_000)
    wanted = 20_000_000 // form.target
    assert stock.size < knots.most_tokens(stock, form, wanted, KnotsOptions()).tokens < wanted * form.room


def test_no_round_has_more_than_the_longest_documents(world: World) -> None:
    sizes = [len(d["text"].encode()) for d in world.documents if d["part"] == "screen"]
    for rounds in (1, 2, 5, len(sizes), 2 * len(sizes)):
        documents = -(-len(sizes) // rounds)
        stock = largest_round(world.home, world.corpus.documents, rounds)
        most = sum(sorted(sizes, reverse=True)[:documents])
        assert stock == Stock(documents, most, len(sizes), sum(sizes), max(sizes))
        for number in range(1, rounds + 1):
            own = [len(world.documents[row]["text"].encode()) for row in literal_order(world, number, rounds)]
            assert len(own) <= stock.documents
            assert sum(own) <= stock.size


def _knn(home: Home, fields: dict[str, Any]) -> None:
    find_neighbours.run(home, NeighbourInputs(**fields, index=IndexConfig()), KnnOptions())


def _knots(home: Home, fields: dict[str, Any]) -> None:
    tie_knots.run(home, KnotsInputs(**fields), KnotsOptions())


@pytest.mark.parametrize("run", [_knn, _knots])
def test_a_round_that_cannot_be_filled_is_refused_before_anything_is_looked_up(
    run: Callable[[Home, dict[str, Any]], None], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents are counted for a round of its own, no text is tokenised and no index opened."""

    def used(*_: Any) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr("tasks.whole_documents.neighbours.index_for", used)
    monkeypatch.setattr("tasks.whole_documents.document_order.RoundDocuments.texts", used)
    fields = document_inputs(world, samples=200_000)
    size = sum(len(world.documents[row]["text"].encode()) for row in literal_order(world, 1))
    with pytest.raises(InputError, match=rf"^round 1 of 2 has 9 documents of {size:,} bytes, .* for 200000 samples of"):
        run(world.home, fields)
    assert not [path for path in (world.home / "work").iterdir() if path.name in ("neighbours", "knots")]


def test_every_recipe_that_screens_nothing_says_what_documents_give() -> None:
    for recipe in all_recipes().values():
        assert (recipe.most_tokens is not None) == (recipe.screener == "none"), recipe.name
