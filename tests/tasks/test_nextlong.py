"""NExtLong against the paper's words: greedy grouping, the k formula worked by hand, and whole rounds against a literal
interleaving with brute-force cosine.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.embedders import EmbedderConfig
from storage.errors import ConfigError, InputError
from storage.home import Home
from storage.vectors import IndexConfig
from tasks.whole_documents.interleaving import InterleavingInputs, interleave, negatives_of
from tasks.whole_documents.meta_chunks import MetaChunkInputs, chosen_stretches, cut_meta_chunks
from tasks.whole_documents.meta_retrieval import MetaRetrievalInputs, retrieve_for_meta_chunks
from tasks.whole_documents.nextlong import MetaChunk, NextLongOptions, group_paragraphs, negatives_each, plans_of
from tests.document_steps import SEPARATOR, document_inputs, literal_order, rows_of, tokenise
from tests.world import World, embed, make_world


def literal_groups(text: str, s: int) -> list[str]:
    """Paragraphs one by one: one that still fits joins the meta-chunk, one that does not begins the next."""
    groups: list[list[str]] = []
    for line in text.split("\n"):
        if groups and len("\n".join([*groups[-1], line])) <= s:
            groups[-1].append(line)
        else:
            groups.append([line])
    return ["\n".join(group) for group in groups]


lines = st.lists(st.text("ab c.", min_size=1, max_size=30).filter(str.strip), min_size=1, max_size=12)


@given(lines, st.integers(1, 80))
def test_paragraphs_are_packed_greedily(lines: list[str], s: int) -> None:
    text = "\n".join(lines)
    assert [text[start:end] for start, end in group_paragraphs(text, s)] == literal_groups(text, s)


@given(st.lists(st.sampled_from(["alpha", "beta gamma", "", "  ", "d"]), max_size=15), st.integers(1, 40))
def test_nothing_but_blank_lines_lies_between_meta_chunks(lines: list[str], s: int) -> None:
    text = "\n".join(lines)
    spans = group_paragraphs(text, s)
    end = 0
    for start, stop in spans:
        assert not text[end:start].strip()
        assert text[start:stop].strip()
        assert text[start] != "\n"
        assert stop - start <= s or "\n" not in text[start:stop], "a meta-chunk of several lines is too long"
        end = stop
    assert not text[end:].strip()


def pieces(characters: int, tokens: int, count: int) -> list[MetaChunk]:
    """A document of ``count`` meta-chunks of equal size."""
    each = characters // count
    return [MetaChunk(n, n * each, (n + 1) * each, tokens // count) for n in range(count)]


@pytest.mark.parametrize(
    ("target", "characters", "count", "options", "k"),
    [
        # (131072 * 4 * 1.5 - 8192) / (4 * 2048) = 95
        (131072, 8192, 4, NextLongOptions(characters_per_token=4), 95),
        # (2048 * 3.2 * 1.5 - 6000) / (3 * 2048) = 0.62: the formula degenerates
        (2048, 6000, 3, NextLongOptions(scale=False, characters_per_token=3.2), 0),
        # E = 4096 / 1024 = 4, s = 2048 / 16 * 4 = 512: (2048 * 4 * 1.5 - 4096) / (8 * 512) = 2
        (2048, 4096, 8, NextLongOptions(scale=True), 2),
        # E = 2048 / 512 = 4: (2048 * 4 * 1.5 - 2048) / (4 * 512) = 5
        (2048, 2048, 4, NextLongOptions(scale=True), 5),
        # S exceeds T * E * w
        (100, 4000, 2, NextLongOptions(scale=False, characters_per_token=4), -1),
        # w = 2: (1000 * 4 * 2 - 2000) / (2 * 500) = 6
        (1000, 2000, 2, NextLongOptions(s=500, scale=False, w=2, characters_per_token=4), 6),
    ],
)
def test_k_is_the_formulas(target: int, characters: int, count: int, options: NextLongOptions, k: int) -> None:
    assert negatives_each(pieces(characters, characters // 4, count), target, options) == k


def test_characters_per_token_are_measured_where_they_are_not_given() -> None:
    measured, given_ = NextLongOptions(), NextLongOptions(characters_per_token=5)
    assert negatives_each(pieces(10000, 2000, 5), 4096, measured) == negatives_each(
        pieces(10000, 2000, 5), 4096, given_
    )


@given(st.integers(1, 30), st.integers(200, 4000), st.integers(20, 300), st.booleans())
def test_stretches_are_as_long_as_k_allows(count: int, target: int, each: int, scale: bool) -> None:
    options = NextLongOptions(s=each, scale=scale, stretches=8)
    document = pieces(count * each, count * each // 4, count)
    plans = list(plans_of(document, target, options))
    assert [piece for plan in plans for piece in plan.pieces] == document
    for plan, following in pairwise(plans):
        longer = [*plan.pieces, following.pieces[0]]
        assert negatives_each(longer, target, options) < options.least_negatives
    for plan in plans:
        assert plan.negatives == negatives_each(plan.pieces, target, options)
        assert plan.negatives >= options.least_negatives or len(plan.pieces) == 1
    (whole,) = plans_of(document, target, NextLongOptions(s=each, scale=scale, stretches=0))
    assert whole.pieces == tuple(document)


@given(st.lists(st.lists(st.integers(0, 20), unique=True, max_size=12), min_size=1, max_size=6), st.integers(1, 5))
def test_a_negative_stands_once_and_the_nearest_come_first(candidates: list[list[int]], k: int) -> None:
    chosen = negatives_of(candidates, k)
    flat = [chunk for own in chosen for chunk in own]
    assert len(set(flat)) == len(flat)
    for number, (own, nearest) in enumerate(zip(chosen, candidates, strict=True)):
        earlier = {chunk for before in chosen[:number] for chunk in before}
        free = [chunk for chunk in nearest if chunk not in earlier]
        assert own == free[:k]


TARGET = 448
CHOICE = NextLongOptions(scale=True, stretches=0)


@pytest.fixture
def world(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(home, tmp_path, monkeypatch)


def run_round(
    world: World, options: NextLongOptions, *, shard: int = 1000, **changes: Any
) -> dict[str, list[dict[str, Any]]]:
    """The three steps of a round, retrieval in shards of so many roots: {table: rows}."""
    fields = document_inputs(world, **{"target_tokens": TARGET, **changes})
    cut = cut_meta_chunks.run(world.home, MetaChunkInputs(**fields), options)
    found = []
    for first in range(0, cut["roots"].rows, shard):
        inputs = MetaRetrievalInputs(
            roots=cut["roots"], first_root=first, stop_root=min(first + shard, cut["roots"].rows), corpus="world",
            target_tokens=fields["target_tokens"], embedder=EmbedderConfig(), index=IndexConfig(),
        )  # fmt: skip
        found.append(retrieve_for_meta_chunks.run(world.home, inputs, options)["candidates"])
    inputs_ = InterleavingInputs(**fields, roots=cut["roots"], candidates=tuple(found), left_out=cut["unplaced"])
    made = interleave.run(world.home, inputs_, options)
    tables = {name: rows_of(world, ref) for name, ref in (cut | made).items()}
    return {**tables, "candidates": [row for ref in found for row in rows_of(world, ref)]}


def literal_sample(world: World, doc: int, options: NextLongOptions) -> tuple[int, list[int] | None]:
    """(k, ids or None) of a document: NExtLong word for word, everything by brute force."""
    text = world.documents[doc]["text"]
    encoding = len(text) / len(tokenise(world, text))
    groups = [group.strip("\n") for group in literal_groups(text, int(TARGET / 16 * encoding))]
    groups = [group for group in groups if group]
    tokens = [tokenise(world, group) for group in groups]
    # Divided by E on both sides: (T * w - S in tokens) / (p * T / 16).
    k = int((TARGET * options.w - sum(map(len, tokens))) // (len(groups) * TARGET / 16))
    if k < options.least_negatives:
        return k, None
    separator = tokenise(world, SEPARATOR)
    spans: list[list[int]] = []
    used: set[int] = set()
    vectors = [embed(chunk["text"]).astype(np.float64) for chunk in world.chunks]
    for group, ids in zip(groups, tokens, strict=True):
        spans.append(ids)
        query = embed(group).astype(np.float64)
        order = sorted(range(len(vectors)), key=lambda c: (-round(float(np.dot(query, vectors[c])), 6), c))
        near = [c for c in order if world.chunks[c]["doc"] != doc][: int(np.ceil(k * options.overfetch))]
        for chunk in [c for c in near if c not in used][:k]:
            used.add(chunk)
            spans.append(tokenise(world, world.chunks[chunk]["text"]))
    ids = [token for span in spans for token in [*separator, *span]][len(separator) :] + separator
    return k, ids[:TARGET] if len(ids) >= TARGET else None


def test_a_round_is_the_literal_interleaving(world: World) -> None:
    seen: set[str] = set()
    for number in (1, 2):
        tables = run_round(world, CHOICE, round=number)
        expected, left_out = [], set()
        for doc in literal_order(world, number):
            k, ids = literal_sample(world, doc, CHOICE)
            if ids is not None:
                expected.append(ids)
            elif k < CHOICE.least_negatives:
                left_out.add(doc)
        assert [sample["input_ids"] for sample in tables["samples"]] == expected
        assert {row["doc"] for row in tables["unplaced"] if row["reason"] == "too-few-negatives"} == left_out
        docs = {segment["doc_id"] for s in tables["samples"] for segment in s["segments"] if segment["kind"] == "root"}
        assert not docs & seen, "rounds share documents"
        seen |= docs
    assert len(seen) >= 4


def test_every_span_is_what_it_says_and_heads_stand_before_their_negatives(world: World) -> None:
    tables = run_round(world, CHOICE, shard=2)
    chunk_of = {chunk["chunk_id"]: (row, chunk) for row, chunk in enumerate(world.chunks)}
    root_of = {root["root_id"]: (row, root) for row, root in enumerate(tables["roots"])}
    usable = {(row["root"], row["chunk"]) for row in tables["candidates"] if row["excluded"] is None}
    assert {row["t"] for row in tables["candidates"]} == {0}
    assert {row["excluded"] for row in tables["candidates"]} == {None, "root-document"}
    assert tables["samples"]
    for sample in tables["samples"]:
        assert sample["length"] == len(sample["input_ids"]) == TARGET
        assert sample["dependencies"] == []
        assert sample["segments"][0]["kind"] == "root"
        head, document, starts, chunks = -1, None, [], []
        for place, segment in enumerate(sample["segments"]):
            ids = sample["input_ids"][segment["start"] : segment["end"]]
            if segment["kind"] == "root":
                head, root = root_of[segment["root_id"]]
                assert document in (None, root["doc"]), "a sample of two documents"
                document, origin = root["doc"], root["input_ids"]
                starts.append(root["char_start"])
            else:
                row, chunk = chunk_of[segment["chunk_id"]]
                assert (head, row) in usable
                assert chunk["doc"] != document
                origin = tokenise(world, chunk["text"])
                chunks.append(row)
            assert segment["source_start"] == 0
            assert ids == (origin[: len(ids)] if place == len(sample["segments"]) - 1 else origin)
        assert starts == sorted(starts), "meta-chunks are out of order"
        assert len(set(chunks)) == len(chunks), "a chunk stands twice"


def test_shards_do_not_change_a_round(world: World) -> None:
    assert run_round(world, CHOICE, shard=3) == run_round(world, CHOICE)


def test_what_finds_no_place_is_reported(world: World) -> None:
    tables = run_round(world, CHOICE)
    placed = {
        s["root_id"]: s["end"] - s["start"] for x in tables["samples"] for s in x["segments"] if s["kind"] == "root"
    }
    reported = {row["root"]: row["tokens"] for row in tables["unplaced"] if row["kind"] == "root"}
    for number, root in enumerate(tables["roots"]):
        assert placed.get(root["root_id"], 0) + reported.get(number, 0) == len(root["input_ids"])


def test_a_budget_is_kept_and_few_documents_more_than_needed_are_cut(world: World) -> None:
    everything = run_round(world, CHOICE)
    tables = run_round(world, CHOICE, samples=1)
    assert tables["samples"] == everything["samples"][:1]
    assert len(tables["roots"]) < len(everything["roots"])
    assert {row["reason"] for row in tables["unplaced"]} <= {
        "budget",
        "sample-full",
        "too-few-negatives",
        "sample-not-filled",
    }


def test_long_documents_give_several_samples_when_they_are_cut_into_stretches(world: World) -> None:
    options = NextLongOptions(scale=True, stretches=8)
    tables = run_round(world, options, target_tokens=160)
    assert not [row for row in tables["unplaced"] if row["kind"] == "document"]
    documents = [next(s["doc_id"] for s in sample["segments"]) for sample in tables["samples"]]
    assert len(documents) > len(set(documents)), "no document gave two samples"
    roots = [s["root_id"] for sample in tables["samples"] for s in sample["segments"] if s["kind"] == "root"]
    assert len(set(roots)) == len(roots)


def test_a_document_of_many_stretches_gives_some_that_follow_each_other() -> None:
    options = NextLongOptions(s=100, scale=False, stretches=3)
    rows = [{"char_start": n * 100, "char_end": n * 100 + 99, "input_ids": [n] * 25} for n in range(60)]
    pieces = [MetaChunk(n, n * 100, n * 100 + 99, 25) for n in range(60)]
    every = [plan.pieces for plan in plans_of(pieces, 200, options)]
    assert len(every) > 6
    starts = set()
    for number in range(40):
        chosen, samples = chosen_stretches(f"document {number}", rows, 200, options)
        assert samples == 3
        first = chosen[0]["char_start"] // 100
        assert [row["char_start"] // 100 for row in chosen] == list(range(first, first + len(chosen)))
        again = [plan.pieces for plan in plans_of(pieces[first : first + len(chosen)], 200, options)]
        assert again == every[every.index(again[0]) :][:3], "other plans are read from the table than were made"
        starts.add(first)
    assert len(starts) > 3


def test_a_round_that_can_give_nothing_is_refused(world: World) -> None:
    with pytest.raises(InputError, match="none of the 9 documents of round 1 leaves room for 3 negatives"):
        run_round(world, NextLongOptions(scale=False, stretches=0), target_tokens=128)
    few = r"round 1 of 2 has 9 documents .* 1 sample a document \(build.options.stretches\): too few for 10 samples"
    with pytest.raises(InputError, match=few):
        run_round(world, CHOICE, samples=10)
    with pytest.raises(InputError, match="no document of round 1 has negatives enough to fill a sample of 4000 tokens"):
        run_round(world, CHOICE, target_tokens=4000)


def test_another_embedder_than_the_corpuss_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        digest = "f" * 64

    monkeypatch.setattr("tasks.whole_documents.meta_retrieval.embedder_for", lambda config: Other())
    with pytest.raises(ConfigError, match="the corpus was embedded with"):
        run_round(world, CHOICE)
