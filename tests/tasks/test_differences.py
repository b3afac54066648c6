"""Differences against plain sets and the statistics of the standard library."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest

from storage.corpora import publish_corpus
from storage.digests import digest_json
from storage.errors import InputError, IntegrityError
from storage.home import Home
from storage.schemas import TABLES
from storage.tables import write_table
from tasks.provenance.differences import Differences, Distribution, changed, differences
from tests.rounds import BuiltRound, build_round, build_rounds, make_corpus, version_folder
from tests.world_by_hand import CONFIG, Row, Shards, chunks, documents, roots


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> list[BuiltRound]:
    return build_rounds(Home.open(tmp_path_factory.mktemp("rounds") / "home"), 2, change=other_numbers)


def other_numbers(tables: Shards) -> None:
    """Another policy on the probe root: one position gone, one pair refused, other entropies, gains and distances."""
    for number, shard in enumerate(tables["positions"]):
        for row in shard:
            row["entropy"] = 3.0 + 0.25 * row["t"] + number
    tables["positions"][0] = [row for row in tables["positions"][0] if (row["root"], row["t"]) != (0, 11)]
    for shard in tables["verdicts"]:
        for row in shard:
            row["gain"] = row["gain"] - 0.01 * row["t"]
    tables["verdicts"][0][0].update(kept=False, reason="gain-too-small")
    tables["screened"][1][0]["threshold"] = 2.5
    for dependency, distance in zip(tables["samples"][0][0]["dependencies"], (5, 900, 77, 3), strict=True):
        dependency["distance"] = distance


def rows(built: BuiltRound, table: str, *, probe: bool) -> list[Row]:
    return [row for shard in built.tables[table] for row in shard if not probe or row["root"] == 0]


def sets(built: BuiltRound, what: str, *, probe: bool) -> set[Any]:
    name = [row["root_id"] for row in built.tables["roots"][0]]
    if what == "roots":
        return {name[row["root"]] for row in rows(built, "screened", probe=probe)}
    if what == "positions":
        return {(name[row["root"]], row["t"]) for row in rows(built, "positions", probe=probe)}
    table = "verdicts" if what == "positives" else "negatives"
    return {
        (name[row["root"]], chunks()[row["chunk"]]["chunk_id"])
        for row in rows(built, table, probe=probe)
        if row["kept"]
    }


def numbers(built: BuiltRound, what: str, *, probe: bool) -> list[float]:
    if what == "distance":
        return [d["distance"] for shard in built.tables["samples"] for row in shard for d in row["dependencies"]]
    table = {"entropy": "positions", "threshold": "screened", "gain": "verdicts"}[what]
    return [row[what] for row in rows(built, table, probe=probe) if row.get("kept", True)]


def check(found: Differences, one: BuiltRound, two: BuiltRound) -> None:
    assert {(o.scope, o.what) for o in found.overlaps} == {
        (scope, what) for scope in ("all", "probe") for what in ("roots", "positions", "positives", "negatives")
    }
    for overlap in found.overlaps:
        first, second = (sets(built, overlap.what, probe=overlap.scope == "probe") for built in (one, two))
        assert (overlap.stayed, overlap.came, overlap.went) == (
            len(first & second),
            len(second - first),
            len(first - second),
        )
        assert overlap.share == (pytest.approx(len(first & second) / len(first | second)) if first | second else None)
    for drift in found.drifts:
        for built, shown in ((one, drift.first), (two, drift.second)):
            values = numbers(built, drift.what, probe=drift.scope == "probe")
            assert shown.count == len(values)
            assert shown.mean == pytest.approx(statistics.fmean(values), rel=1e-6)
            quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
            assert [shown.lower, shown.median, shown.upper] == pytest.approx(quartiles, rel=1e-6)


def test_what_stayed_came_and_went_and_how_the_numbers_moved(rounds: list[BuiltRound]) -> None:
    found = differences(rounds[0].home, "1", "2")
    assert (found.first, found.second) == (rounds[0].version, rounds[1].version)
    assert found.unknown == ()
    check(found, *rounds)
    probe = {o.what: (o.stayed, o.came, o.went) for o in found.overlaps if o.scope == "probe"}
    assert probe == {"roots": (1, 0, 0), "positions": (1, 0, 1), "positives": (1, 0, 1), "negatives": (2, 0, 0)}
    assert (
        Differences.model_validate(found.model_dump(exclude={"overlaps": {"__all__": {"went", "came", "share"}}}))
        == found
    )


def test_the_corpus_need_not_be_there_when_both_are_of_it(rounds: list[BuiltRound], tmp_path: Path) -> None:
    shutil.copytree(rounds[0].home.path, tmp_path / "home")
    shutil.rmtree(tmp_path / "home/corpora")
    check(differences(Home.open(tmp_path / "home"), "1", "2"), *rounds)


def test_a_version_beside_itself_differs_in_nothing(rounds: list[BuiltRound]) -> None:
    found = differences(rounds[0].home, "1", rounds[0].version[:8])
    assert found.changes == ()
    assert all((overlap.came, overlap.went) == (0, 0) for overlap in found.overlaps)


def test_every_change_of_the_manifest_is_listed_with_its_dotted_key(home: Home) -> None:
    config = {**CONFIG, "entropy": {"alpha": 1.5}, "extra": {"depth": [1, 2]}}
    one = build_round(home, policy="a" * 64)
    numeric = one.manifest.numeric.model_copy(update={"dtype": "bfloat16", "versions": {"torch": "2.14.0"}})
    changes = {
        "config": config,
        "config_digest": digest_json(config),
        "numeric": numeric,
        "code_versions": {"entropy": 2, "assembly": 1},
        "recipe": "entropylong",
    }
    two = build_round(home, policy="b" * 64, manifest_changes=changes)
    found = {
        (c.section, c.key): (c.first, c.second, c.only_in) for c in differences(home, one.version, two.version).changes
    }
    assert found == {
        ("identity", "recipe"): ("policylong", "entropylong", None),
        ("identity", "policy"): ("a" * 64, "b" * 64, None),
        ("identity", "version"): (one.version, two.version, None),
        ("config", "entropy.alpha"): (2.0, 1.5, None),
        ("config", "extra"): (None, {"depth": [1, 2]}, "second"),
        ("numeric", "dtype"): ("float32", "bfloat16", None),
        ("numeric", "versions.torch"): ("2.13.0", "2.14.0", None),
        ("code_versions", "assembly"): (None, 1, "second"),
        ("code_versions", "entropy"): (1, 2, None),
    }


def test_null_and_absent_are_not_the_same() -> None:
    (change,) = changed("config", {"a": None}, {})
    assert (change.first, change.second, change.only_in) == (None, None, "first")
    assert list(changed("config", {"a": {"b": None}}, {"a": {"b": None}})) == []


def renumbered(tables: Shards) -> None:
    """The same roots in another order: every root row is its mirror image."""
    last = len(roots()) - 1
    tables["roots"][0].reverse()
    for name in ("screened", "positions", "candidates", "verdicts", "negatives"):
        for shard in tables[name]:
            for row in shard:
                row["root"] = last - row["root"]


def test_roots_are_the_same_whatever_their_numbers(home: Home) -> None:
    one, two = build_round(home), build_round(home, change=renumbered)
    found = differences(home, one.version, two.version)
    assert [(o.stayed, o.came, o.went) for o in found.overlaps] == [(o.first, 0, 0) for o in found.overlaps]
    assert sum(o.stayed for o in found.overlaps) > 0


def corpus_of_other_numbers(home: Home) -> str:
    """The world's corpus without its first chunk: every other chunk has another row."""
    tables = {
        "documents": documents(),
        "chunks": chunks()[1:],
        "quarantine": [],
        "vectors": [],
    }
    refs = {
        name: write_table(home.path, f"work/other/{name}.parquet", TABLES[name], rows) for name, rows in tables.items()
    }
    refs["vectors-00000"] = refs.pop("vectors")
    return publish_corpus(home, {"embedder": {"digest": "e" * 64, "dimension": 2}}, refs)


def one_lower(tables: Shards) -> None:
    """Chunks by the rows of the corpus without its first."""
    for name in ("candidates", "verdicts", "negatives"):
        for shard in tables[name]:
            shard[:] = [row for row in shard if 0 not in (row["chunk"], row.get("seed_chunk"))]
            for row in shard:
                row["chunk"] -= 1
                if "seed_chunk" in row:
                    row["seed_chunk"] -= 1


def test_chunks_of_two_corpora_meet_by_their_digest(home: Home) -> None:
    one = build_round(home, corpus=make_corpus(home))
    two = build_round(home, corpus=corpus_of_other_numbers(home), change=one_lower)
    found = differences(home, one.version, two.version)
    assert found.unknown == ()
    for what in ("positives", "negatives"):
        (overlap,) = [o for o in found.overlaps if (o.scope, o.what) == ("all", what)]
        first = sets(one, what, probe=False)
        lost = {key for key in first if key[1] == chunks()[0]["chunk_id"]}
        assert overlap.went <= len(lost) + sum(
            row["seed_chunk"] == 0 for shard in one.tables["negatives"] for row in shard
        )
        assert overlap.came == 0
        assert overlap.stayed == overlap.second > 0


def test_sets_that_can_not_meet_are_refused_and_the_rest_is_shown(home: Home) -> None:
    one, gone = build_round(home, corpus=make_corpus(home)), build_round(home, corpus="f" * 64)
    found = differences(home, one.version, gone.version)
    assert {o.what for o in found.overlaps} == {"roots", "positions"}
    assert "corpus ffffffffffff is not in this home" in found.unknown[0]
    assert ("identity", "corpus") in {(c.section, c.key) for c in found.changes}

    def strangers(tables: Shards) -> None:
        for row in tables["roots"][0]:
            row["root_id"] = digest_json([row["root_id"]])

    other = build_round(home, corpus=one.manifest.corpus, change=strangers)
    found = differences(home, one.version, other.version)
    assert found.overlaps == ()
    assert "no root of the one is a root of the other" in found.unknown[0]
    assert len(found.drifts) == 7


def test_rounds_without_samples_or_tables(home: Home) -> None:
    def bare(tables: Shards) -> None:
        for name in ("roots", "screened", "positions", "candidates", "verdicts", "negatives"):
            tables[name] = [[]]
        tables["samples"][0].clear()

    one, two = build_round(home, change=bare), build_round(home, 2, change=bare)
    found = differences(home, one.version, two.version)
    empty = Distribution(count=0, mean=None, lower=None, median=None, upper=None)
    assert all((drift.first, drift.second) == (empty, empty) for drift in found.drifts)
    assert all(overlap.share is None for overlap in found.overlaps)


def test_a_recipe_without_roots_has_nothing_to_compare(home: Home) -> None:
    def documents_only(tables: Shards) -> None:
        for name in ("roots", "screened", "positions", "candidates", "verdicts", "negatives"):
            del tables[name]

    one = build_round(home)
    two = build_round(home, change=documents_only, manifest_changes={"recipe": "standard"})
    found = differences(home, one.version, two.version)
    assert (found.overlaps, len(found.unknown)) == ((), 1)
    assert found.unknown[0].startswith("recipe standard cuts no roots")
    assert {o.first for o in differences(home, two.version, two.version).overlaps} == {0}


def test_what_is_not_there_is_one_line(rounds: list[BuiltRound], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no round 3"):
        differences(rounds[0].home, "1", "3")
    with pytest.raises(InputError, match="no dataset version begins with"):
        differences(rounds[0].home, "00000000", "1")
    shutil.copytree(rounds[0].home.path, tmp_path / "home")
    home = Home.open(tmp_path / "home")
    (home / f"versions/{version_folder(rounds[1]).name}/tables/screened-00000.parquet").unlink()
    with pytest.raises(IntegrityError, match="screened-00000"):
        differences(home, "1", "2")
