"""Takedown against plain counting: every segment of every sample, and policies followed from parent to child."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from storage.errors import InputError
from storage.home import Home
from tasks.provenance.takedown import Takedown, takedown
from tests.rounds import BuiltRound, build_round, build_rounds, make_corpus, make_policy, version_folder
from tests.world_by_hand import Row, Shards, chunks, documents, roots


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> list[BuiltRound]:
    return build_rounds(Home.open(tmp_path_factory.mktemp("rounds") / "home"), 2)


@pytest.fixture
def copy(rounds: list[BuiltRound], tmp_path: Path) -> Home:
    """A home that a test may damage."""
    shutil.copytree(rounds[0].home.path, tmp_path / "copy")
    return Home.open(tmp_path / "copy")


def samples(built: BuiltRound) -> list[Row]:
    return [row for shard in built.tables["samples"] for row in shard]


@pytest.mark.parametrize("doc", range(6))
def test_every_document_reached_what_counting_says(doc: int, rounds: list[BuiltRound]) -> None:
    document = documents()[doc]
    report = takedown(rounds[0].home, document["doc_id"][:12])
    assert report.documents == (document["doc_id"],)
    (held,) = report.corpora
    assert (held.row, held.part, held.chunks) == (doc, document["part"], sum(c["doc"] == doc for c in chunks()))
    found = {reach.version: reach for reach in report.versions}
    for built in rounds:
        segments = [s for sample in samples(built) for s in sample["segments"] if s["doc_id"] == document["doc_id"]]
        screened = {row["root"] for shard in built.tables["screened"] for row in shard}
        own = sum(roots()[root]["doc"] == doc for root in screened)
        assert (built.version in found) == bool(segments or own)
        if built.version not in found:
            continue
        reach = found[built.version]
        assert reach.campaigns == (f"world:{built.manifest.round}",)
        assert {r.role: (r.segments, r.tokens, r.samples) for r in reach.roles} == {
            kind: (len(lengths), sum(lengths), 1)
            for kind in {s["kind"] for s in segments}
            if (lengths := [s["end"] - s["start"] for s in segments if s["kind"] == kind])
        }
        assert reach.screened_roots == own
        assert [s.row for s in reach.samples] == ([0] if segments else [])
    one, two = rounds
    trained = {one.version: two.manifest.policy, two.version: report_next(rounds)}
    reached = [version for version in (one.version, two.version) if version in found and found[version].roles]
    expected = []
    if reached:
        first = [one.version, two.version].index(reached[0])
        expected = [trained[version] for version in (one.version, two.version)[first:]]
    assert [policy.digest for policy in report.policies] == expected
    assert report.reached == bool(found or expected)
    assert report.exit_code == 0


def report_next(rounds: list[BuiltRound]) -> str:
    """The policy trained on the last round."""
    from storage.policies import list_policies

    (record,) = [r for r in list_policies(rounds[-1].home) if r.trained_on == rounds[-1].version]
    return record.digest


def test_descendants_are_reached_and_say_so(rounds: list[BuiltRound], copy: Home) -> None:
    last = report_next(rounds)
    child = make_policy(copy, 7, parent=last, trained_on="9" * 64)
    probe_only = documents()[4]["doc_id"]
    assert takedown(copy, probe_only).policies == (), "a probe root is screened, never trained on"
    (used,) = [d for d in documents()[:1] if d["part"] == "screen"]
    policies = takedown(copy, used["doc_id"]).policies
    assert [(p.digest, p.direct) for p in policies][-1] == (child, False)
    assert policies[0].direct


def test_a_source_may_name_several_documents_and_a_campaign_an_unregistered_policy(copy: Home) -> None:
    by_source = takedown(copy, "world#2")
    assert by_source == takedown(copy, documents()[2]["doc_id"]).model_copy(update={"asked": "world#2"})
    shutil.rmtree(copy / "policies")
    bare = takedown(copy, "world#2")
    assert [(p.digest, p.trained_on, p.registered) for p in bare.policies] == [
        (p.digest, p.trained_on, False) for p in by_source.policies
    ]


def test_a_document_that_reached_nothing_is_said(rounds: list[BuiltRound]) -> None:
    for asked in ("0" * 16, "somewhere/else.txt"):
        report = takedown(rounds[0].home, asked)
        assert (report.documents, report.versions, report.policies) == ((), (), ())
        assert (report.reached, report.exit_code, report.looked_at) == (False, 0, 2)
    heldout = takedown(rounds[0].home, "world#5")
    assert (len(heldout.corpora), heldout.reached) == (1, False)


def test_a_beginning_that_is_too_short_or_fits_two(home: Home) -> None:
    def twins(tables: Shards) -> None:
        segments = tables["samples"][0][0]["segments"]
        for number, segment in enumerate(segments[:2]):
            segment["doc_id"] = f"abcdabcd{number}" + "0" * 55

    build_round(home, change=twins)
    with pytest.raises(InputError, match="too short for a digest"):
        takedown(home, "abcdabc")
    with pytest.raises(InputError, match="abcdabcd fits 2 documents"):
        takedown(home, "abcdabcd")
    assert takedown(home, "abcdabcd1").versions[0].screened_roots is None


def test_it_needs_no_corpus_and_does_not_pass_over_what_it_can_not_read(rounds: list[BuiltRound], copy: Home) -> None:
    whole = takedown(copy, documents()[2]["doc_id"])
    shutil.rmtree(copy / "corpora")
    bare = takedown(copy, documents()[2]["doc_id"][:8].upper())
    assert bare.corpora == ()
    assert [v.roles for v in bare.versions] == [v.roles for v in whole.versions if v.roles]
    assert bare.policies == whole.policies
    next((copy / f"versions/{rounds[0].version[:16]}").glob("samples/*")).unlink()
    partial = takedown(copy, documents()[2]["doc_id"])
    assert (partial.exit_code, len(partial.unread)) == (1, 1)
    assert version_folder(rounds[0]).name in partial.unread[0]
    assert Takedown.model_validate(partial.model_dump(exclude={"exit_code"})) == partial


def test_several_roles_in_one_sample_are_counted_apart(home: Home) -> None:
    doc_id = documents()[3]["doc_id"]

    def roles(tables: Shards) -> None:
        kinds = ("filler", "document", "tag", "document")
        for kind, segment in zip(kinds, tables["samples"][0][0]["segments"], strict=False):
            segment.update(kind=kind, doc_id=doc_id)
        for segment in tables["samples"][0][0]["segments"][4:]:
            segment["doc_id"] = documents()[5]["doc_id"]

    built = build_round(home, corpus=make_corpus(home), change=roles)
    (reach,) = takedown(home, "world#3").versions
    assert reach.version == built.version
    assert {(r.role, r.segments, r.tokens) for r in reach.roles} == {
        ("filler", 1, 10), ("document", 2, 20), ("tag", 1, 10),
    }  # fmt: skip
    assert reach.samples[0].tokens == {"filler": 10, "document": 20, "tag": 10}
