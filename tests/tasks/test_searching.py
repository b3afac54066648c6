"""Search against a plain reading: every segment's own text, folded, looked at one by one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from storage.errors import InputError
from storage.home import Home
from tasks.provenance.searching import pattern, search
from tests.published_world import PublishedWorld, publish_world
from tests.rounds import BuiltRound, build_round, build_rounds, make_corpus, make_policy
from tests.world import make_world
from tests.world_by_hand import Shards, chunks, documents, tokens

Place = tuple[int, int]
"""Row of a sample and number of a segment."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltRound:
    return build_rounds(Home.open(tmp_path_factory.mktemp("rounds") / "home"), 1)[0]


@dataclass(frozen=True)
class Real:
    """A round with a real tokenizer, and of each segment the text its tokens decode to and its range in the sample."""

    published: PublishedWorld = field(repr=False)
    texts: dict[Place, tuple[str, int, int]] = field(repr=False)
    tokenizer: Any = field(repr=False)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        published = publish_world(make_world(Home.open(folder / "home"), folder / "scratch", patch))
        tokenizer = AutoTokenizer.from_pretrained(published.world.folder)
        texts = {
            (row, number): (tokenizer.decode(sample["input_ids"][s["start"] : s["end"]]), s["start"], s["end"])
            for row, sample in enumerate(published.rows("samples"))
            for number, s in enumerate(sample["segments"])
        }
        yield Real(published, texts, tokenizer)


def folded(text: str) -> str:
    return " ".join(text.split())


def test_any_piece_of_a_segment_is_found_wherever_it_stands(real: Real) -> None:
    samples = real.published.rows("samples")
    keys = sorted(real.texts)

    @settings(max_examples=25, deadline=None)
    @given(number=st.integers(0, 10_000), start=st.integers(0, 10_000), length=st.integers(1, 60))
    def check(number: int, start: int, length: int) -> None:
        text = real.texts[keys[number % len(keys)]][0]
        wanted = folded(text[start % len(text) :][:length])
        if not wanted:
            return
        found = search(real.published.world.home, real.published.version, f"  {wanted}\n", limit=10_000)
        expected = {key for key, (own, _, _) in real.texts.items() if wanted in folded(own)}
        by_text = {(hit.row, hit.segment): hit for hit in found.hits if hit.matched == "text"}
        assert by_text.keys() == expected
        for key, hit in by_text.items():
            own, first, last = real.texts[key]
            assert first <= hit.start < hit.end <= last
            assert wanted in folded(real.tokenizer.decode(samples[hit.row]["input_ids"][hit.start : hit.end]))
            assert hit.times == len(list(pattern(wanted).finditer(own)))
            assert (folded(hit.found), hit.exact) == (wanted, True)
        assert not found.more

    check()


def test_ids_sources_and_titles_find_their_segments(built: BuiltRound) -> None:
    (sample,) = built.tables["samples"][0]
    for name in ("root_id", "chunk_id", "doc_id"):
        for wanted in {s[name] for s in sample["segments"] if s[name]}:
            found = search(built.home, "1", wanted[:12].upper())
            numbers = [n for n, s in enumerate(sample["segments"]) if s[name] == wanted]
            assert [(hit.segment, hit.matched) for hit in found.hits] == [(n, name) for n in numbers]
    (hit,) = search(built.home, "1", sample["sample_id"][:8]).hits
    assert (hit.row, hit.matched) == (0, "sample_id")
    for name, wanted in (("source", "world#2"), ("title", "document 2")):
        found = search(built.home, "1", wanted)
        numbers = [n for n, s in enumerate(sample["segments"]) if s["doc_id"] == documents()[2]["doc_id"]]
        assert [(hit.segment, hit.matched) for hit in found.hits] == [(n, name) for n in numbers]


def test_the_limit_is_kept_and_said(built: BuiltRound) -> None:
    every = search(built.home, "1", "w", limit=100)
    assert (len(every.hits), every.more) == (len(built.tables["samples"][0][0]["segments"]), False)
    some = search(built.home, "1", "w", limit=3)
    assert (some.hits, some.more) == (every.hits[:3], True)


def test_case_counts_and_nothing_found_is_nothing(built: BuiltRound) -> None:
    assert search(built.home, "1", "W1").hits == ()
    assert search(built.home, "1", "ffffffffffff").hits == ()
    assert search(built.home, "1", ".").hits == (), "a text is not a pattern"


def test_what_was_cut_away_or_lies_outside_a_range_is_not_found(home: Home) -> None:
    """A chunk cut at its front, and a range of a whole document: only their own words count."""
    row = documents()[1]
    words = row["text"].split(" ")

    def cut(tables: Shards) -> None:
        chunk = next(c for c in chunks() if c["doc"] == 2)
        none = {"root_id": None, "chunk_id": None, "doc_id": row["doc_id"]}
        first = {"kind": "negative", "root_id": None, "chunk_id": chunk["chunk_id"], "source_start": 4}
        first |= {"doc_id": documents()[2]["doc_id"], "start": 0, "end": 6}
        second = {"kind": "document", "start": 7, "end": 17, "source_start": 12} | none
        ids = [*tokens(chunk["text"])[4:], 0, *tokens(row["text"])[12:22]]
        tables["samples"][0][0].update(input_ids=ids, length=17, segments=[first, second], dependencies=[])

    policy = make_policy(home, 1, parent=None, trained_on=None)
    built = build_round(home, corpus=make_corpus(home), policy=policy, change=cut)
    chunk = next(c for c in chunks() if c["doc"] == 2)["text"].split(" ")
    assert search(home, built.version, " ".join(chunk[2:5])).hits == ()
    (hit,) = search(home, built.version, " ".join(chunk[5:8])).hits
    assert (hit.segment, hit.start, hit.end) == (0, 1, 4)
    (hit,) = search(home, built.version, "\n".join(words[14:18])).hits
    assert (hit.segment, hit.start, hit.end) == (1, 9, 13)
    assert search(home, built.version, " ".join(words[8:12])).hits == ()
    shutil.rmtree(home / "policies")
    blind = search(home, built.version, " ".join(chunk[2:5]))
    assert [(hit.start, hit.end, hit.exact) for hit in blind.hits] == [(0, 6, False)]
    assert "whole segments" in blind.unknown[0]


def test_without_the_corpus_only_ids_can_be_searched(built: BuiltRound, tmp_path: Path) -> None:
    shutil.copytree(built.home.path, tmp_path / "home")
    home = Home.open(tmp_path / "home")
    shutil.rmtree(home / "corpora")
    with pytest.raises(InputError, match="its texts can't be searched"):
        search(home, "1", "w1 w2")
    wanted = chunks()[0]["doc"]
    found = search(home, "1", built.tables["samples"][0][0]["segments"][0]["doc_id"][:8])
    assert found.hits
    assert found.hits[0].source is None
    assert len(found.unknown) == 1
    assert wanted == 0


@pytest.mark.parametrize(("version", "text", "told"), [("1", "  \n", "is empty"), ("9", "w1", "has no round 9")])
def test_what_can_not_be_searched_is_one_line(version: str, text: str, told: str, built: BuiltRound) -> None:
    with pytest.raises(InputError, match=told):
        search(built.home, version, text)


def test_an_empty_round_holds_nothing(home: Home) -> None:
    built = build_round(home, corpus=make_corpus(home), change=lambda tables: tables["samples"][0].clear())
    assert search(home, built.version, "w1").hits == ()
