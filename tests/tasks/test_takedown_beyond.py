"""Takedown outside of finished versions: rounds that were not finished, tables of steps, exports and pushes."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from storage.checkpoints import StepKey, run_step, work_uri
from storage.home import Home
from storage.schemas import ROOTS as ROOTS_TABLE
from storage.schemas import SAMPLES, SCREENED
from storage.tables import write_table
from storage.versions import version_uri
from tasks.exporting.exporting import export_version
from tasks.exporting.noted import FOLDER, list_exports, note_push
from tasks.provenance.takedown import takedown
from tests.rounds import BuiltRound, build_rounds, version_folder
from tests.world_by_hand import Row, documents, roots

REACHING = 2
"""A document that both rounds of the world use."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[BuiltRound]:
    return build_rounds(Home.open(tmp_path_factory.mktemp("made") / "home"), 2)


@pytest.fixture
def home(made: list[BuiltRound], tmp_path: Path) -> Home:
    """A home that a test may change."""
    shutil.copytree(made[0].home.path, tmp_path / "copy")
    return Home.open(tmp_path / "copy")


def held(rows: list[Row], doc_id: str) -> tuple[int, int]:
    """Samples with a segment of the document, and the tokens of these segments."""
    tokens: Counter[str] = Counter()
    for sample in rows:
        for segment in sample["segments"]:
            if segment["doc_id"] == doc_id:
                tokens[sample["sample_id"]] += segment["end"] - segment["start"]
    return len(tokens), sum(tokens.values())


def test_a_round_that_was_not_finished_is_named_with_what_it_holds(made: list[BuiltRound], home: Home) -> None:
    doc_id, last = documents()[REACHING]["doc_id"], made[1]
    whole = takedown(home, doc_id)
    assert (whole.unfinished, whole.exports) == ((), ())
    (home / version_uri(last.version) / "manifest.json").unlink()
    report = takedown(home, doc_id)
    assert [v.version for v in report.versions] == [made[0].version]
    (found,) = report.unfinished
    assert found.uri == version_uri(last.version)
    assert (found.samples, found.tokens) == held([row for s in last.tables["samples"] for row in s], doc_id)
    assert found.tokens > 0
    next((home / found.uri).glob("samples/*")).write_bytes(b"half a file")
    broken = takedown(home, doc_id)
    assert (broken.unfinished, broken.exit_code, len(broken.unread)) == ((), 1, 1)
    assert found.uri in broken.unread[0]


def test_tables_of_steps_are_named_unless_a_version_has_them(made: list[BuiltRound], home: Home) -> None:
    doc_id = documents()[REACHING]["doc_id"]
    corpus = next((home / "corpora").glob("*/documents.parquet"))
    sample = made[0].tables["samples"][0][0]

    def step(name: str, table: str, inputs: dict[str, str], rows: list[Row]) -> str:
        schema = {"roots": ROOTS_TABLE, "screened": SCREENED, "samples": SAMPLES}[table]
        key = StepKey(step=name, code_version=1, inputs=inputs, config={"rows": len(rows)})
        made = run_step(home, key, lambda: {table: write_table(home.path, work_uri(key, table), schema, rows)})
        return made[table].sha256

    from storage.digests import digest_file

    cut = step("roots", "roots", {"documents": digest_file(corpus)}, roots())
    statistics = {"tokens": 20, "scored": 19, "mean": 1.0, "std": 0.5, "threshold": 2.5, "selected": 1}
    own = [number for number, root in enumerate(roots()) if root["doc"] == REACHING]
    step("entropy", "screened", {"roots": cut}, [{"root": n, **statistics} for n in range(len(roots()))])
    step("assembly", "samples", {"roots": cut}, [sample | {"sample_id": "another"}])
    step("assembly", "samples", {"roots": cut, "same": "as published"}, [sample])
    report = takedown(home, doc_id)
    found = {reach.uri.split("/")[1]: reach for reach in report.unfinished}
    assert found.keys() == {"assembly", "entropy"}
    assert len(report.unfinished) == 2, "the published samples are counted with their version"
    assert found["entropy"].roots == len(own) == 1
    assert (found["assembly"].samples, found["assembly"].tokens) == held([sample], doc_id)
    assert report.reached
    assert takedown(home, documents()[5]["doc_id"]).unfinished == ()
    next((home / "checkpoints/entropy").glob("*")).write_text("{")
    assert takedown(home, doc_id).exit_code == 1


def test_exports_and_pushes_of_what_it_reached_are_named(made: list[BuiltRound], home: Home, tmp_path: Path) -> None:
    doc_id, (one, two) = documents()[REACHING]["doc_id"], made
    folder = tmp_path / "out"
    export_version(home, one.version, folder, "jsonl")
    export_version(home, one.version, folder, "jsonl")
    note_push(home, two.version, "somebody/samples")
    report = takedown(home, doc_id)
    assert {(e.version, e.where, e.format, e.there) for e in report.exports} == {
        (one.version, str(folder), "jsonl", True),
        (two.version, "somebody/samples", "parquet", None),
    }
    assert takedown(home, documents()[5]["doc_id"]).exports == ()
    shutil.rmtree(folder)
    assert {e.there for e in takedown(home, doc_id).exports} == {False, None}
    shutil.rmtree(home / version_uri(two.version))
    assert takedown(home, doc_id).unfollowed == (two.version,)
    assert len(list_exports(home)) == 2
    next((home / FOLDER).glob("*")).write_text('{"version": 1}')
    damaged = takedown(home, doc_id)
    assert (damaged.exit_code, damaged.exports) == (1, ())
    assert "is not an export's note" in damaged.unread[0]
    assert version_folder(one).is_dir()
