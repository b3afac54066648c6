"""What a trace says besides a token's verdicts: a whole sample, the line of policies, documents and tags, and what it
still knows without corpus or policy.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from storage.home import Home
from tasks.provenance.traces import Trace
from tasks.provenance.tracing import trace
from tests.rounds import BuiltRound, build_round, build_rounds, make_corpus, make_policy
from tests.traced import at, rows, words_before
from tests.world_by_hand import Shards, documents, tokens


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> list[BuiltRound]:
    return build_rounds(Home.open(tmp_path_factory.mktemp("rounds") / "home"), 2)


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
