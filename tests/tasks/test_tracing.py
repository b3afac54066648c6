"""Traces against independent readings: rows of the tables by plain loops, segments by a linear scan, characters by
slicing the text.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from storage.errors import InputError, IntegrityError
from storage.home import Home
from tasks.provenance.lookup import find_sample, find_span, open_subject
from tasks.provenance.token_origins import Origins, tokens_of
from tasks.provenance.traces import Trace
from tasks.provenance.tracing import trace
from tests.published_world import PublishedWorld, publish_world
from tests.rounds import BuiltRound, build_round, build_rounds, make_corpus, make_policy, version_folder
from tests.world import make_world
from tests.world_by_hand import Row, Shards, chunks, documents, roots, tokens


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> list[BuiltRound]:
    return build_rounds(Home.open(tmp_path_factory.mktemp("rounds") / "home"), 2)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublishedWorld]:
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        yield publish_world(make_world(Home.open(folder / "home"), folder / "scratch", patch))


def rows(built: BuiltRound, table: str) -> list[Row]:
    return [row for shard in built.tables[table] for row in shard]


def at(found: Trace) -> Any:
    (piece,) = found.pieces
    return piece


def segment_of(sample: Row, token: int) -> Row | None:
    for segment in sample["segments"]:
        if segment["start"] <= token < segment["end"]:
            return segment
    return None


def words_before(text: str, count: int) -> int:
    """Characters of a text in front of its word number ``count``."""
    return len("".join(f"{word} " for word in text.split(" ")[:count]))


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


def test_a_whole_sample_lists_its_segments_and_dependencies(rounds: list[BuiltRound]) -> None:
    built = rounds[0]
    (sample,) = rows(built, "samples")
    found = trace(built.home, "1", sample["sample_id"][:10])
    assert (found.version, found.row, found.span, found.pieces) == (built.version, 0, None, ())
    assert [(o.kind, o.start, o.end, o.doc_id) for o in found.segments] == [
        (s["kind"], s["start"], s["end"], s["doc_id"]) for s in sample["segments"]
    ]
    assert sum(o.helps for o in found.segments) == 2 * len(sample["dependencies"])
    assert [(d.position, d.chunk_id, d.distance, d.rank) for d in found.dependencies] == [
        (d["position"], d["chunk_id"], d["distance"], 0) for d in sample["dependencies"]
    ]
    assert found.code_versions == {"entropy": 1}
    assert Trace.model_validate_json(found.model_dump_json()) == found


def test_the_policy_is_followed_to_the_base_model_by_records_and_by_manifests(
    rounds: list[BuiltRound], tmp_path: Path
) -> None:
    one, two = rounds
    expected = [(two.manifest.policy, one.version), (one.manifest.policy, None)]
    line = trace(two.home, two.version, "0").policies
    assert [(a.digest, a.trained_on) for a in line] == expected
    assert all(a.known and a.rounds is not None for a in line)
    shutil.copytree(two.home.path, tmp_path / "home")
    shutil.rmtree(tmp_path / "home/policies")
    line = trace(Home.open(tmp_path / "home"), two.version, "0").policies
    assert [(a.digest, a.trained_on) for a in line] == expected
    shutil.rmtree(tmp_path / f"home/versions/{one.version[:16]}")
    line = trace(Home.open(tmp_path / "home"), two.version, "0").policies
    assert [(a.digest, a.known) for a in line] == [(two.manifest.policy, True), (one.manifest.policy, False)]


def test_without_corpus_and_policy_the_version_still_says_what_it_knows(
    rounds: list[BuiltRound], tmp_path: Path
) -> None:
    built = rounds[1]
    (sample,) = rows(built, "samples")
    shutil.copytree(built.home.path, tmp_path / "home")
    home = Home.open(tmp_path / "home")
    shutil.rmtree(home / "corpora")
    piece = at(found := trace(home, "2", "0", "3"))
    assert len(found.unknown) == 1
    assert "corpus" in found.unknown[0]
    assert (piece.text, piece.characters, piece.origin.source) == ("w21", None, None)
    (link,) = piece.links
    (dependency,) = [d for d in sample["dependencies"] if d["chunk_id"] == piece.origin.chunk_id]
    assert (link.helped, link.gain, link.distance) == (True, 0.75, dependency["distance"])
    assert (link.query, link.rank, link.nll_after) == (f"around {link.t}", None, None)
    shutil.rmtree(home / "policies")
    piece = at(found := trace(home, "2", "0", str(dependency["position"])))
    assert len(found.unknown) == 2
    assert "tokenizer" in found.unknown[0]
    assert (piece.text, piece.before) == (None, None)
    assert [p.t for p in piece.root.positions] == [dependency["t"]]
    assert [link.helped for link in piece.links] == [True]


def whole_documents(tables: Shards) -> None:
    """A sample as recipes of whole documents make it: BOS, tag, ranges of two documents, a separator at its end."""
    first, second = documents()[1], documents()[2]
    ids = [9, 1, 2, 3, 0, *tokens(first["text"])[12:30], 0, *tokens(second["text"])[:5], 0]
    none = {"root_id": None, "chunk_id": None}
    segments = [
        none | {"kind": "tag", "doc_id": first["doc_id"], "start": 1, "end": 4, "source_start": 1},
        none | {"kind": "document", "doc_id": first["doc_id"], "start": 5, "end": 23, "source_start": 12},
        none | {"kind": "document", "doc_id": second["doc_id"], "start": 24, "end": 29, "source_start": 0},
    ]
    tables["samples"][0][0].update(input_ids=ids, length=30, segments=segments, dependencies=[])
    tables["neighbours"] = [[{"doc": 1, "neighbour": n, "rank": n, "score": 0.5} for n in (2, 3)]]


def test_documents_tags_neighbours_and_what_stands_between_them(home: Home) -> None:
    policy = make_policy(home, 1, parent=None, trained_on=None)
    built = build_round(home, corpus=make_corpus(home), policy=policy, change=whole_documents)
    text = documents()[1]["text"]
    found = trace(home, built.version, "0", "0-29")
    assert [(p.kind, p.start, p.end) for p in found.pieces] == [
        ("bos", 0, 1), ("tag", 1, 4), ("separator", 4, 5), ("document", 5, 23), ("separator", 23, 24),
        ("document", 24, 29), ("separator", 29, 30),
    ]  # fmt: skip
    tag, part, second = found.pieces[1], found.pieces[3], found.pieces[5]
    assert tag.origin is not None
    assert (tag.origin.source_start, tag.origin.char_start, tag.characters) == (1, None, None)
    assert tag.text == "w0 w1 w2"
    assert part.text == " ".join(text.split(" ")[12:30])
    assert part.characters == (words_before(text, 12), words_before(text, 30) - 1)
    assert (part.neighbours, tag.neighbours) == ((), ())
    assert [(n.doc_id, n.rank, n.score) for n in second.neighbours] == [(documents()[1]["doc_id"], 2, 0.5)]
    piece = at(trace(home, built.version, "0", "8"))
    assert (piece.text, piece.characters[0]) == (text.split(" ")[15], words_before(text, 15))


def test_a_random_chunk_has_no_cosine_and_text_that_is_not_the_samples_is_not_shown(home: Home) -> None:
    def change(tables: Shards) -> None:
        for shard in tables["negatives"]:
            for row in shard:
                row["score"] = None
        for segment in tables["samples"][0][0]["segments"]:
            segment["kind"] = "filler" if segment["kind"] == "negative" else segment["kind"]
        tables["samples"][0][0]["input_ids"][12] = 59

    policy = make_policy(home, 1, parent=None, trained_on=None)
    built = build_round(home, corpus=make_corpus(home), policy=policy, change=change)
    piece = at(found := trace(home, built.version, "0", "12"))
    assert (piece.kind, piece.seeds[0].score, piece.characters) == ("filler", None, None)
    assert piece.text == "w58"
    assert "segment 1" in found.unknown[0]


@pytest.mark.parametrize(
    ("version", "sample", "token", "told"),
    [
        ("1", "1", None, "has samples 0 to 0: there is no sample 1"),
        ("1", "ffff0000", None, "no sample of version"),
        ("1", "zz", None, "neither a sample's number nor"),
        ("1", "0", "129", "129 tokens, 0 to 128: there is no token 129"),
        ("1", "0", "120-129", "there is no token 129"),
        ("1", "0", "9-3", "ends before it begins"),
        ("1", "0", "", "names no token"),
        ("1", "0", "-1", "names no token"),
        ("3", "0", None, "has no round 3 (finished: 1, 2)"),
        ("other:1", "0", None, "there is no campaign 'other'"),
        ("00000000", "0", None, "no dataset version begins with 00000000"),
        ("first", "0", None, "neither a round number nor"),
    ],
)
def test_what_is_not_there_is_one_clear_line(
    version: str, sample: str, token: str | None, told: str, rounds: list[BuiltRound]
) -> None:
    with pytest.raises(InputError) as error:
        trace(rounds[0].home, version, sample, token)
    assert told in error.value.message
    assert "\n" not in error.value.message


def test_a_round_by_number_by_campaign_and_by_prefix_is_the_same(rounds: list[BuiltRound]) -> None:
    home, version = rounds[1].home, rounds[1].version
    assert {trace(home, text, "0").version for text in ("2", "world:2", version[:6], version)} == {version}


def test_prefixes_that_fit_two_and_rounds_that_are_not_finished(rounds: list[BuiltRound], tmp_path: Path) -> None:
    shutil.copytree(rounds[0].home.path, tmp_path / "home")
    home, version = Home.open(tmp_path / "home"), rounds[0].version
    twin = home / f"versions/{version[:8]}{'0' * 8}"
    shutil.copytree(version_folder(BuiltRound(home, version, rounds[0].manifest, {}, {})), twin)
    with pytest.raises(InputError, match=f"{version[:8]} is ambiguous"):
        trace(home, version[:8], "0")
    (twin / "manifest.json").unlink()
    with pytest.raises(InputError, match="has no manifest, that round was not finished"):
        trace(home, twin.name, "0")
    assert trace(home, version[:8], "0").version == version


def test_an_empty_round_and_a_damaged_one(home: Home) -> None:
    built = build_round(home, change=lambda tables: tables["samples"][0].clear())
    with pytest.raises(InputError, match="has no samples"):
        trace(home, built.version, "0")
    (version_folder(built) / "tables/verdicts-00000.parquet").unlink()
    with pytest.raises(IntegrityError, match=r"verdicts-00000\.parquet is missing"):
        trace(home, built.version, "0")


def test_a_sample_by_a_prefix_that_fits_two(home: Home) -> None:
    def twice(tables: Shards) -> None:
        (sample,) = tables["samples"][0]
        tables["samples"].append([dict(sample, sample_id=sample["sample_id"][:12] + "0" * 52)])

    built = build_round(home, change=twice)
    subject = open_subject(home, built.version)
    name = rows(built, "samples")[0]["sample_id"]
    assert find_sample(subject, "1").sample_id == name[:12] + "0" * 52
    assert find_sample(subject, name[:24]).row == 0
    with pytest.raises(InputError, match="fits 2 samples"):
        find_sample(subject, name[:10])
    assert find_span(find_sample(subject, "1"), " 5-7 ") == (5, 8)
