"""Untie-the-Knots data: whoever follows the tags gets the documents back, and parts of several of them are mixed."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import ConfigError
from storage.home import Home
from tasks.samples.spans import Form
from tasks.whole_documents.document_order import TokenDocument
from tasks.whole_documents.knots import KnotsInputs, KnotsOptions, cut_places, knotted, tie_knots
from tasks.whole_documents.tags import tag_text
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

options = st.builds(
    KnotsOptions,
    parts=st.integers(1, 5),
    least_part_tokens=st.integers(1, 20),
    documents=st.integers(1, 5),
    seed=st.integers(0, 3),
)


def tag_ids(doc_id: str, part: int) -> list[int]:
    """Two tokens: the document and the part."""
    return [100 + int(doc_id), 500 + part]


def traced_back(samples: list[dict[str, Any]]) -> dict[str, list[int]]:
    """The documents' tokens as the tags alone give them: parts by number, each part what follows its tag."""
    parts: dict[str, dict[int, list[int]]] = {}
    for sample in samples:
        spans = [(s["kind"], s["doc_id"], sample["input_ids"][s["start"] : s["end"]]) for s in sample["segments"]]
        for (kind, doc_id, tag), (next_kind, next_doc, body) in pairwise(spans):
            if kind != "tag":
                continue
            assert (next_kind, next_doc) == ("document", doc_id)
            part = tag[1] - 500
            assert part not in parts.setdefault(doc_id, {}), "two parts have one number"
            parts[doc_id][part] = body
    for own in parts.values():
        assert sorted(own) == list(range(len(own))), "a part's number was left out"
    return {doc_id: [t for part in sorted(own) for t in own[part]] for doc_id, own in parts.items()}


@given(lengths, forms, options, st.one_of(st.none(), st.integers(1, 5)))
def test_the_tags_lead_back_to_the_documents(
    lengths: list[int], form: Form, options: KnotsOptions, wanted: int | None
) -> None:
    documents = numbered_documents(lengths)
    left: list[dict[str, Any]] = []
    samples = list(knotted(documents, tag_ids, form, options, wanted, left))
    check_spans(samples, documents, form)
    for sample in samples:
        for tag in (segment for segment in sample["segments"] if segment["kind"] == "tag"):
            ids = sample["input_ids"][tag["start"] : tag["end"]]
            expected = tag_ids(tag["doc_id"], tag["source_start"])
            assert ids == expected or (tag is sample["segments"][-1] and ids == expected[: len(ids)])
        kinds = [segment["kind"] for segment in sample["segments"]]
        assert kinds == [("tag", "document")[place % 2] for place in range(len(kinds))]
        last: dict[str, int] = {}
        for segment in sample["segments"]:
            if segment["kind"] == "document":
                assert segment["source_start"] >= last.get(segment["doc_id"], 0), "parts are out of order"
                last[segment["doc_id"]] = segment["source_start"] + segment["end"] - segment["start"]
    traced = traced_back(samples)
    rest = {row["doc"]: row["tokens"] for row in left}
    for document in documents:
        tokens = traced.get(document.doc_id, [])
        assert tokens == document.ids[: len(tokens)].tolist(), "tokens are missing, doubled or out of order"
        if wanted is None or len(samples) < wanted:
            assert len(tokens) + rest.get(document.row, 0) == len(document), "tokens were lost"
    reason = "budget" if wanted is not None and len(samples) == wanted else "sample-not-filled"
    assert {row["reason"] for row in left} <= {reason}


@given(st.integers(0, 500), st.integers(1, 500), options, st.text("0123456789abcdef", min_size=8, max_size=8))
def test_cuts_are_random_places_that_depend_on_the_document_alone(
    first: int, tokens: int, options: KnotsOptions, doc_id: str
) -> None:
    borders = cut_places(doc_id, first, first + tokens, options)
    assert borders == cut_places(doc_id, first, first + tokens, options)
    assert borders == sorted(set(borders))
    assert (borders[0], borders[-1]) == (first, first + tokens)
    assert len(borders) - 1 == min(options.parts, max(1, tokens // options.least_part_tokens))


def test_cuts_fall_everywhere() -> None:
    places = Counter(
        place
        for number in range(300)
        for place in cut_places(f"{number:08d}", 0, 10, KnotsOptions(parts=3, least_part_tokens=1))[1:-1]
    )
    assert set(places) == set(range(1, 10))
    assert max(places.values()) < 3 * min(places.values())


def test_no_document_has_more_than_its_share_while_others_wait() -> None:
    documents = numbered_documents([400, 400, 400, 400, 400])
    form = Form(120, (), (2,))
    choice = KnotsOptions(parts=3, least_part_tokens=4, documents=4)
    samples = list(knotted(documents, tag_ids, form, choice, None, []))
    for sample in samples[:8]:
        tokens: Counter[str] = Counter()
        for segment in sample["segments"]:
            tokens[segment["doc_id"]] += (segment["end"] - segment["start"]) * (segment["kind"] == "document")
        assert len(tokens) >= 4
        assert max(tokens.values()) <= 30
    order = [[s["doc_id"] for s in sample["segments"] if s["kind"] == "document"] for sample in samples[:8]]
    assert any(ids != sorted(ids, key=ids.index) for ids in order), "parts of documents were never mixed"


def test_a_sample_that_holds_no_tag_is_refused() -> None:
    documents = numbered_documents([50])
    with pytest.raises(ConfigError, match="a sample of 4 tokens does not hold a tag of 2 tokens and a part"):
        list(knotted(documents, tag_ids, Form(4, (1,), (2, 3)), KnotsOptions(least_part_tokens=1), None, []))


@pytest.fixture
def world(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(home, tmp_path, monkeypatch)


def test_a_round_of_real_text(world: World) -> None:
    choice = KnotsOptions(least_part_tokens=10, documents=3)
    seen: set[str] = set()
    for number in (1, 2):
        inputs = KnotsInputs(**document_inputs(world, round=number, target_tokens=256))
        refs = tie_knots.run(world.home, inputs, choice)
        samples, left = rows_of(world, refs["samples"]), rows_of(world, refs["unplaced"])
        order = literal_order(world, number)
        documents = {row: tokenise(world, world.documents[row]["text"]) for row in order}
        check_spans(
            samples,
            [
                TokenDocument(row, world.documents[row]["doc_id"], np.asarray(ids, np.int32))
                for row, ids in documents.items()
            ],
            Form(256, (), tuple(tokenise(world, SEPARATOR))),
        )
        assert len(samples) >= 2
        placed = 0
        for sample in samples:
            for segment in sample["segments"]:
                ids = sample["input_ids"][segment["start"] : segment["end"]]
                if segment["kind"] == "tag":
                    assert ids == tokenise(world, tag_text(segment["doc_id"], segment["source_start"]))[: len(ids)]
                else:
                    placed += len(ids)
                    seen.add(f"{number}:{segment['doc_id']}")
        assert placed + sum(row["tokens"] for row in left) == sum(map(len, documents.values()))
    first, second = ({doc for n, doc in (s.split(":") for s in seen) if n == number} for number in "12")
    assert first
    assert second
    assert not first & second
