"""The audit of whole documents, their parts and their neighbours: rounds pass, every edit of a signed one is found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.home import Home
from tasks.audit.checks import audit_version
from tests.document_rounds import (
    RECIPES,
    SAMPLES,
    UNPLACED,
    build_document_round,
    dependency,
    failures,
    foreign,
    put_engines,
    rows,
    spans,
)
from tests.rounds import version_folder
from tests.world_by_hand import Row, Shards, documents, tokens

HELD_OUT = 5
Edit = Callable[[Shards], Any]


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> None:
    put_engines(monkeypatch)


def put(tables: Shards, sample: int, segment: Row, ids: list[int]) -> None:
    rows(tables, "samples")[sample]["input_ids"][segment["start"] : segment["end"]] = ids


def point_at(tables: Shards, sample: int, segment: Row, doc: int, first: int = 0) -> None:
    """Lets a document span hold another range of another document, with the right tokens."""
    ids = tokens(documents()[doc]["text"])[first : first + segment["end"] - segment["start"]]
    segment.update(doc_id=documents()[doc]["doc_id"], source_start=first)
    put(tables, sample, segment, ids)


def other_round(tables: Shards) -> int:
    """A screened document that the round's samples do not have."""
    there = {s["doc_id"] for sample in rows(tables, "samples") for s in sample["segments"]}
    return next(row for row, d in enumerate(documents()) if d["part"] == "screen" and d["doc_id"] not in there)


def nobody_brought(tables: Shards) -> None:
    """The neighbour in the first sample is nobody's neighbour, and no document of the round."""
    doc_id = spans(tables, "document")[1]["doc_id"]
    stranger = next(row for row, d in enumerate(documents()) if d["doc_id"] == doc_id)
    tables["neighbours"] = [[r for r in rows(tables, "neighbours") if stranger not in (r["doc"], r["neighbour"])]]


def swap_parts(tables: Shards) -> None:
    """Two parts of one document change places in their sample; the tags stay where they are."""
    for number, sample in enumerate(rows(tables, "samples")):
        own: dict[str, list[Row]] = {}
        for segment in sample["segments"]:
            if segment["kind"] == "document":
                own.setdefault(segment["doc_id"], []).append(segment)
        pair = next((parts[:2] for parts in own.values() if len(parts) > 1), None)
        if pair is not None:
            doc = next(row for row, d in enumerate(documents()) if d["doc_id"] == pair[0]["doc_id"])
            starts = [part["source_start"] for part in pair]
            for part, first in zip(pair, reversed(starts), strict=True):
                point_at(tables, number, part, doc, first)
            return
    raise AssertionError("no sample has two parts of one document")


EDITS: dict[str, tuple[str, Edit, str, str]] = {
    "another token in a document": (
        "standard",
        lambda t: put(t, 0, {**spans(t, "document")[0], "end": 1}, [59]),
        "every document span holds its document's tokens",
        SAMPLES,
    ),
    "a document that is held out": (
        "standard",
        lambda t: point_at(t, 0, spans(t, "document")[0], HELD_OUT),
        "every document span is of a screened document",
        SAMPLES,
    ),
    "a document of another round": (
        "standard",
        lambda t: point_at(t, 0, spans(t, "document")[0], other_round(t)),
        "every document belongs to this round",
        SAMPLES,
    ),
    "tokens of a document again": (
        "standard",
        lambda t: spans(t, "document", 1)[0].update(source_start=29),
        "no token of a document stands twice in the round",
        SAMPLES,
    ),
    "a document cut inside a sample": (
        "standard",
        lambda t: spans(t, "document", 1)[0].update(end=spans(t, "document", 1)[0]["end"] - 1),
        "only what ends a sample is cut",
        SAMPLES,
    ),
    "something else than a separator at the end": (
        "standard",
        lambda t: spans(t, "document")[-1].update(end=29),
        "every sample is spans with separators between, in order",
        SAMPLES,
    ),
    "a document that names a root": (
        "standard",
        lambda t: spans(t, "document")[0].update(root_id="0" * 64),
        "no document span names a root or a chunk",
        SAMPLES,
    ),
    "a kind that no table accounts for": (
        "standard",
        lambda t: spans(t, "document")[0].update(kind="positive"),
        "every span is of a kind that the version's tables account for",
        SAMPLES,
    ),
    "a dependency that nobody verified": (
        "standard",
        lambda t: rows(t, "samples")[0]["dependencies"].append(dependency()),
        "no dependency stands without a verdict",
        SAMPLES,
    ),
    "a row left out of nothing": (
        "standard",
        lambda t: rows(t, "unplaced").append(dict(UNPLACED)),
        "every unplaced row names a root or a document",
        "tables/unplaced-00000.parquet",
    ),
    "a root left out where there are none": (
        "standard",
        lambda t: rows(t, "unplaced").append({**UNPLACED, "root": 0}),
        "every unplaced root is a root of this round",
        "tables/unplaced-00000.parquet",
    ),
    "a held-out document left out": (
        "standard",
        lambda t: rows(t, "unplaced").append({**UNPLACED, "doc": HELD_OUT}),
        "every unplaced document is a screened document",
        "tables/unplaced-00000.parquet",
    ),
    "another token in a tag": (
        "untie-the-knots",
        lambda t: put(t, 0, {**spans(t, "tag")[0], "end": 1}, [59]),
        "every tag says of which document and part it is",
        SAMPLES,
    ),
    "a tag of another document": (
        "untie-the-knots",
        lambda t: spans(t, "tag")[0].update(doc_id=documents()[other_round(t)]["doc_id"]),
        "every tag stands before a part of its document",
        SAMPLES,
    ),
    "a part without its tag": (
        "untie-the-knots",
        lambda t: rows(t, "samples")[0]["segments"].pop(0),
        "every part has its tag before it",
        SAMPLES,
    ),
    "a tag cut inside a sample": (
        "untie-the-knots",
        lambda t: spans(t, "tag")[0].update(end=3),
        "only what ends a sample is cut",
        SAMPLES,
    ),
    "two parts of one number": (
        "untie-the-knots",
        lambda t: [tag.update(source_start=0) for sample in (0, 1) for tag in spans(t, "tag", sample)],
        "parts of a document are numbered in their order",
        SAMPLES,
    ),
    "parts in another order": (
        "untie-the-knots",
        swap_parts,
        "parts of a document keep their order in a sample",
        SAMPLES,
    ),
    "a document twice in a sample": (
        "knn",
        lambda t: spans(t, "document")[1].update(doc_id=spans(t, "document")[0]["doc_id"]),
        "no document stands twice in a sample",
        SAMPLES,
    ),
    "a neighbour that none brought": (
        "knn",
        nobody_brought,
        "every document is one of the round or a neighbour of one before it",
        SAMPLES,
    ),
    "a pair of neighbours twice": (
        "knn",
        lambda t: rows(t, "neighbours").append(dict(rows(t, "neighbours")[0])),
        "no pair of neighbours occurs twice",
        "tables/neighbours-00000.parquet",
    ),
    "a document beside itself": (
        "knn",
        lambda t: rows(t, "neighbours")[0].update(neighbour=rows(t, "neighbours")[0]["doc"]),
        "no document is its own neighbour",
        "tables/neighbours-00000.parquet",
    ),
    "a neighbour that is held out": (
        "knn",
        lambda t: rows(t, "neighbours")[0].update(neighbour=HELD_OUT),
        "every neighbour is a screened document",
        "tables/neighbours-00000.parquet",
    ),
    "neighbours of a held-out document": (
        "knn",
        lambda t: rows(t, "neighbours")[0].update(doc=HELD_OUT),
        "every document is a screened document",
        "tables/neighbours-00000.parquet",
    ),
    "neighbours of a document of another round": (
        "knn",
        lambda t: rows(t, "neighbours")[0].update(doc=foreign(t)),
        "every document belongs to this round",
        "tables/neighbours-00000.parquet",
    ),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_round_passes_every_check(recipe: str, home: Home) -> None:
    built = build_document_round(home, recipe)
    report = audit_version(home, built.version)
    assert failures(report) == {}
    unknown = {finding.check for finding in report.findings if finding.status == "not-checkable"}
    assert unknown <= {
        "campaign record",
        "MLflow run",
        "Prefect flow run that built it",
        "training consumed exactly this version",
    }
    kinds = {s["kind"] for sample in rows(built.tables, "samples") for s in sample["segments"]}
    assert kinds == {
        "standard": {"document"}, "untie-the-knots": {"document", "tag"}, "knn": {"document"},
        "nextlong": {"root", "negative"},
    }[recipe]  # fmt: skip
    counted = {kind: built.manifest.tokens[kind] for kind in kinds}
    assert all(counted.values())
    assert sum(built.manifest.tokens.values()) == 2 * built.manifest.tokens["total"]
    assert built.manifest.funnel["verdicts"] == built.manifest.funnel["positions"] == 0


def test_a_sample_may_end_in_a_separator(home: Home) -> None:
    built = build_document_round(home, "standard", target=41)
    assert [sample["segments"][-1]["end"] for sample in rows(built.tables, "samples")] == [40, 40]
    assert failures(audit_version(home, built.version)) == {}


def test_without_corpus_and_policy_what_can_be_checked_is(home: Home, tmp_path: Path) -> None:
    built = build_document_round(home, "untie-the-knots")
    elsewhere = Home.open(tmp_path / "elsewhere")
    folder = version_folder(built).relative_to(home.path).as_posix()
    shutil.copytree(home / folder, elsewhere / folder)
    report = audit_version(elsewhere, built.version)
    assert failures(report) == {}
    found = {finding.check: finding.status for finding in report.findings}
    assert found["every document span holds its document's tokens"] == "not-checkable"
    assert found["every span is of a kind that the version's tables account for"] == "passed"


@pytest.mark.parametrize("edit", EDITS)
def test_every_manipulation_of_a_signed_round_is_found_in_its_file(edit: str, home: Home) -> None:
    recipe, change, check, file = EDITS[edit]
    built = build_document_round(home, recipe, change=change)
    found = failures(audit_version(home, built.version))
    assert found.get(check) == f"{version_folder(built).relative_to(home.path)}/{file}", found
