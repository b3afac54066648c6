"""The audit of NExtLong's rounds: every edit of a signed one is found by the check that is about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from storage.home import Home
from tasks.audit.checks import audit_version
from tests.document_rounds import (
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
from tests.world_by_hand import Row, Shards, chunks

Edit = Callable[[Shards], Any]


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> None:
    put_engines(monkeypatch)


def twice(tables: Shards) -> None:
    """A chunk stands twice in a sample."""
    first, second = spans(tables, "negative")[:2]
    second.update(chunk_id=first["chunk_id"], doc_id=first["doc_id"])


def used_candidate(tables: Shards) -> Row:
    """The candidate behind a negative that stands in the first sample."""
    (segment, *_), by_id = spans(tables, "negative"), {chunk["chunk_id"]: row for row, chunk in enumerate(chunks())}
    root = next(n for n, r in enumerate(rows(tables, "roots")) if r["root_id"] == spans(tables, "root")[0]["root_id"])
    chunk = by_id[segment["chunk_id"]]
    return next(row for row in rows(tables, "candidates") if (row["root"], row["chunk"]) == (root, chunk))


EDITS: dict[str, tuple[Edit, str, str]] = {
    "a candidate of no meta-chunk": (
        lambda t: rows(t, "candidates")[0].update(root=99),
        "every candidate is of a root of this round",
        "tables/candidates-00000.parquet",
    ),
    "a candidate of a part of its meta-chunk": (
        lambda t: rows(t, "candidates")[0].update(t=3),
        "every candidate is of its whole root",
        "tables/candidates-00000.parquet",
    ),
    "a chunk of the meta-chunk's own document let through": (
        lambda t: next(row for row in rows(t, "candidates") if row["excluded"]).update(excluded=None),
        "no candidate comes from its root's document",
        "tables/candidates-00000.parquet",
    ),
    "a negative that was excluded": (
        lambda t: used_candidate(t).update(excluded="copy"),
        "every negative is a candidate of a root of its sample",
        SAMPLES,
    ),
    "a chunk twice in a sample": (twice, "no chunk stands twice in a sample", SAMPLES),
    "a negative cut inside a sample": (
        lambda t: spans(t, "negative")[0].update(end=spans(t, "negative")[0]["end"] - 1),
        "only what ends a sample is cut",
        SAMPLES,
    ),
    "a meta-chunk cut inside a sample": (
        lambda t: spans(t, "root")[0].update(end=spans(t, "root")[0]["end"] - 1),
        "no root is cut but at the end of its sample",
        SAMPLES,
    ),
    "a meta-chunk in two samples": (
        lambda t: spans(t, "root", 1)[0].update(root_id=spans(t, "root")[0]["root_id"]),
        "no root stands in two places",
        SAMPLES,
    ),
    "a meta-chunk that is none": (
        lambda t: spans(t, "root")[0].update(root_id="0" * 64),
        "every root span is a train root of this round",
        SAMPLES,
    ),
    "a meta-chunk of another round": (
        lambda t: rows(t, "roots")[0].update(doc=foreign(t)),
        "every document belongs to this round",
        "tables/roots-00000.parquet",
    ),
    "a positive that nobody verified": (
        lambda t: spans(t, "negative")[0].update(kind="positive"),
        "every span is of a kind that the version's tables account for",
        SAMPLES,
    ),
    "a meta-chunk left out that is none": (
        lambda t: rows(t, "unplaced").append({**UNPLACED, "root": 99, "kind": "root"}),
        "every unplaced root is a root of this round",
        "tables/unplaced-00000.parquet",
    ),
    "a dependency that nobody verified": (
        lambda t: rows(t, "samples")[0]["dependencies"].append(dependency()),
        "no dependency stands without a verdict",
        SAMPLES,
    ),
    "a meta-chunk twice in the table": (
        lambda t: rows(t, "roots").append(dict(rows(t, "roots")[0])),
        "no root occurs twice",
        "tables/roots-00000.parquet",
    ),
    "another token in a negative": (
        lambda t: rows(t, "samples")[0]["input_ids"].__setitem__(spans(t, "negative")[0]["start"], 59),
        "every context span holds its chunk's tokens",
        SAMPLES,
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_every_manipulation_of_a_signed_round_is_found_in_its_file(edit: str, home: Home) -> None:
    change, check, file = EDITS[edit]
    built = build_document_round(home, "nextlong", change=change)
    found = failures(audit_version(home, built.version))
    assert found.get(check) == f"{version_folder(built).relative_to(home.path)}/{file}", found
