"""Traced tokens against independent readings: rows of the tables by plain loops, segments by a linear scan, characters
by slicing the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from storage.home import Home
from tasks.provenance.lookup import open_subject
from tasks.provenance.token_origins import Origins, tokens_of
from tasks.provenance.tracing import trace
from tests.published_world import PublishedWorld, publish_world
from tests.rounds import BuiltRound, build_rounds
from tests.traced import at, rows, segment_of, words_before
from tests.world import make_world
from tests.world_by_hand import Row, chunks, documents, roots, tokens


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> list[BuiltRound]:
    return build_rounds(Home.open(tmp_path_factory.mktemp("rounds") / "home"), 2)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublishedWorld]:
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        yield publish_world(make_world(Home.open(folder / "home"), folder / "scratch", patch))


def named(values: list[Row], key: str, wanted: Any) -> int:
    return next(number for number, row in enumerate(values) if row[key] == wanted)


def test_every_token_of_a_hand_written_round_is_traced_as_one_reads_it(rounds: list[BuiltRound]) -> None:
    built = rounds[1]
    (sample,) = rows(built, "samples")
    here = {named(roots(), "root_id", s["root_id"]) for s in sample["segments"] if s["root_id"]}
    positions = {(row["root"], row["t"]): row for row in rows(built, "positions")}
    verdicts = {(row["root"], row["t"], row["chunk"]): row for row in rows(built, "verdicts")}
    for token in range(sample["length"]):
        piece = at(trace(built.home, built.version, "0", str(token)))
        segment = segment_of(sample, token)
        assert (piece.start, piece.end) == (token, token + 1)
        if segment is None:
            assert (piece.kind, piece.origin, piece.links, piece.characters) == ("separator", None, (), None)
            continue
        document = next(row for row in documents() if row["doc_id"] == segment["doc_id"])
        is_root = segment["kind"] == "root"
        table, key = (roots(), "root_id") if is_root else (chunks(), "chunk_id")
        row = named(table, key, segment[key])
        place = token - segment["start"]
        first = table[row]["char_start"] + words_before(document["text"][table[row]["char_start"] :], place)
        word = document["text"][first:].split(" ")[0]
        assert tokens(word) == [sample["input_ids"][token]]
        assert (piece.text, piece.characters) == (word, (first, first + len(word)))
        assert (
            piece.before + piece.text + piece.after
            == document["text"][table[row]["char_start"] : table[row]["char_end"]]
        )
        assert (piece.kind, piece.origin.source, piece.origin.title) == (
            segment["kind"],
            document["source"],
            document["title"],
        )
        assert (piece.origin.char_start, piece.origin.char_end) == (table[row]["char_start"], table[row]["char_end"])
        if is_root:
            assert piece.root.first_t == place
            assert [p.t for p in piece.root.positions] == ([place] if (row, place) in positions else [])
            expected = {
                (row, place, v["chunk"])
                for v in verdicts.values()
                if v["kept"] and v["root"] == row and v["t"] == place
            }
        else:
            asked = [c for c in rows(built, "candidates") if c["chunk"] == row and c["root"] in here]
            expected = {(c["root"], c["t"], row) for c in asked}
            brought = [n for n in rows(built, "negatives") if n["chunk"] == row and n["root"] in here and n["kept"]]
            assert [s.chunk_id for s in piece.seeds] == [chunks()[n["seed_chunk"]]["chunk_id"] for n in brought]
        found = {
            (named(roots(), "root_id", link.root_id), link.t, named(chunks(), "chunk_id", link.chunk_id)): link
            for link in piece.links
        }
        assert found.keys() == expected
        for place_of, link in found.items():
            check_link(built, sample, place_of, link, verdicts.get(place_of), positions[place_of[:2]])


def check_link(
    built: BuiltRound, sample: Row, key: tuple[int, int, int], link: Any, verdict: Row | None, position: Row
) -> None:
    """A link against the candidate, the verdict, the position and the dependency it stands for."""
    root, t, chunk = key
    (candidate,) = [c for c in rows(built, "candidates") if (c["root"], c["t"], c["chunk"]) == key]
    assert (link.rank, link.excluded) == (candidate["rank"], candidate["excluded"])
    assert link.score == pytest.approx(candidate["score"])
    assert (link.query, link.entropy, link.threshold) == (position["query"], position["entropy"], position["threshold"])
    for name in ("entropy_before", "entropy_after", "nll_before", "nll_after", "gain", "placebo_gain"):
        expected = verdict[name] if verdict else None
        assert getattr(link, name) == (None if expected is None else pytest.approx(expected))
    assert link.kept == (verdict["kept"] if verdict else None)
    recorded = [
        d
        for d in sample["dependencies"]
        if (d["root_id"], d["t"], d["chunk_id"]) == (roots()[root]["root_id"], t, chunks()[chunk]["chunk_id"])
    ]
    assert link.helped == bool(recorded)
    assert link.distance == (recorded[0]["distance"] if recorded else None)
    start = next(s["start"] for s in sample["segments"] if s["root_id"] == link.root_id)
    assert link.position == start + t
    assert tokens(link.token) == [sample["input_ids"][start + t]]


def test_every_token_of_a_real_tokenizer_stands_at_the_characters_it_decodes_to(published: PublishedWorld) -> None:
    """All tokens of all samples: the text before a token is as long as the origin's tokens before it decode to."""
    world = published.world
    tokenizer = AutoTokenizer.from_pretrained(world.folder)
    subject = open_subject(world.home, published.version)
    texts = {row["chunk_id"]: (world.documents[row["doc"]], row) for row in world.chunks}
    texts |= {row["root_id"]: (world.documents[row["doc"]], row) for row in published.rows("roots")}
    checked = 0
    for sample in published.rows("samples"):
        origins = Origins(subject, sample["segments"], tokens_of(world.home, world.policy))
        for segment in sample["segments"]:
            ids = sample["input_ids"][segment["start"] : segment["end"]]
            document, row = texts[segment["chunk_id"] or segment["root_id"]]
            alone = tokenizer(document["text"][row["char_start"] : row["char_end"]], add_special_tokens=False)[
                "input_ids"
            ]
            text = origins.text(segment, ids)
            assert text is not None
            for place in range(len(ids)):
                first = row["char_start"] + len(tokenizer.decode(alone[: segment["source_start"] + place]))
                word = tokenizer.decode([ids[place]])
                assert text.characters(place, place + 1) == (first, first + len(word))
                assert document["text"][first : first + len(word)] == word == text.between(first, first + len(word))
                checked += 1
        origins.close()
    assert checked > 300


def test_tokens_drawn_from_a_real_round_agree_with_its_tables(published: PublishedWorld) -> None:
    world = published.world
    samples = published.rows("samples")
    root_rows = {r["root_id"]: n for n, r in enumerate(published.rows("roots"))}
    chunk_rows = {c["chunk_id"]: n for n, c in enumerate(world.chunks)}
    verdicts = {(v["root"], v["t"], v["chunk"]): v for v in published.rows("verdicts")}

    @settings(max_examples=25, deadline=None)
    @given(number=st.integers(0, 10_000), first=st.integers(0, 10_000), length=st.integers(1, 30))
    def check(number: int, first: int, length: int) -> None:
        sample = samples[number % len(samples)]
        start = first % sample["length"]
        end = min(start + length, sample["length"])
        found = trace(world.home, published.version, sample["sample_id"], f"{start}-{end - 1}")
        assert [t for piece in found.pieces for t in range(piece.start, piece.end)] == list(range(start, end))
        for piece in found.pieces:
            segment = segment_of(sample, piece.start)
            assert (piece.origin is None) == (segment is None)
            if segment is None or piece.origin is None:
                continue
            assert segment_of(sample, piece.end - 1) == segment
            document = next(d for d in world.documents if d["doc_id"] == segment["doc_id"])
            assert piece.characters is not None
            assert document["text"][slice(*piece.characters)] == piece.text
            helped = {(link.root_id, link.t, link.chunk_id) for link in piece.links if link.helped}
            if segment["kind"] == "root":
                expected = [d for d in sample["dependencies"] if piece.start <= d["position"] < piece.end]
            else:
                expected = [d for d in sample["dependencies"] if d["chunk_id"] == segment["chunk_id"]]
            assert helped == {(d["root_id"], d["t"], d["chunk_id"]) for d in expected}
            for link in piece.links:
                verdict = verdicts.get((root_rows[link.root_id], link.t, chunk_rows[link.chunk_id]))
                assert (link.excluded is None) == (verdict is not None)
                if verdict is not None:
                    assert (link.gain, link.literal, link.kept) == (
                        verdict["gain"],
                        verdict["literal"],
                        verdict["kept"],
                    )

    check()
