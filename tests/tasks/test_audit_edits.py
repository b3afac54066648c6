"""The audit of content: a round is manipulated before it is signed, so every digest is right and only the rows tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from storage.digests import digest_json
from storage.home import Home
from tasks.audit.checks import audit_version
from tests.rounds import build_rounds, version_folder
from tests.world_by_hand import Row, Shards, chunks, documents, tokens


def row(tables: Shards, table: str, number: int = 0, shard: int = 0) -> Row:
    return tables[table][shard][number]


def span(tables: Shards, kind: str, number: int = 0) -> Row:
    return [s for s in row(tables, "samples")["segments"] if s["kind"] == kind][number]


def change_token(tables: Shards, kind: str) -> None:
    row(tables, "samples")["input_ids"][span(tables, kind)["start"] + 1] = 59


def change_separator(tables: Shards) -> None:
    row(tables, "samples")["input_ids"][span(tables, "root")["start"] - 1] = 59


def replace_chunk(tables: Shards, kind: str) -> None:
    """Another chunk of the corpus stands where a verified one should, with its own tokens, but never verified."""
    chunk, segment = chunks()[0], span(tables, kind)
    segment.update(chunk_id=chunk["chunk_id"], doc_id=documents()[chunk["doc"]]["doc_id"])
    row(tables, "samples")["input_ids"][segment["start"] : segment["end"]] = tokens(chunk["text"])


def fill(tables: Shards) -> None:
    """Every negative stands there as a random chunk, as in a recipe that draws them."""
    for segment in row(tables, "samples")["segments"]:
        segment["kind"] = "filler" if segment["kind"] == "negative" else segment["kind"]


def replace_filler(tables: Shards) -> None:
    fill(tables)
    replace_chunk(tables, "filler")


def cut(tables: Shards, kind: str, front: int, end: int) -> None:
    """A span says that it holds less of its origin."""
    segment = span(tables, kind)
    segment.update(
        start=segment["start"] + front, source_start=segment["source_start"] + front, end=segment["end"] - end
    )


Edit = Callable[[Shards], Any]
EDITS: dict[str, tuple[Edit, str, str]] = {
    "a root screened twice": (
        lambda t: t["screened"][1].append(dict(row(t, "screened"))),
        "no root is screened twice",
        "tables/screened-00001.parquet",
    ),
    "a root of other tokens": (
        lambda t: row(t, "roots", 1)["input_ids"].append(7),
        "every screened root is a root of that many tokens",
        "tables/screened-00000.parquet",
    ),
    "a position lost": (
        lambda t: t["positions"][1].pop(),
        "every screened root has as many positions as it says",
        "tables/screened-00001.parquet",
    ),
    "a position of a root that was not screened": (
        lambda t: row(t, "positions", 0, 1).update(root=3),
        "every position is of a screened root",
        "tables/positions-00001.parquet",
    ),
    "another token at a position": (
        lambda t: row(t, "positions", 1).update(token_id=3),
        "every position's token stands in its root",
        "tables/positions-00000.parquet",
    ),
    "a position below the threshold": (
        lambda t: row(t, "positions", 1).update(entropy=1.9),
        "every position lies above its root's threshold",
        "tables/positions-00000.parquet",
    ),
    "a candidate of no position": (
        lambda t: row(t, "candidates", 3, 1).update(t=6),
        "every candidate has its position",
        "tables/candidates-00001.parquet",
    ),
    "a candidate outside the corpus": (
        lambda t: row(t, "candidates", 4).update(chunk=999),
        "every candidate is a chunk of the corpus",
        "tables/candidates-00000.parquet",
    ),
    "a chunk of the root's own document let through": (
        lambda t: row(t, "candidates", 4).update(excluded=None),
        "every candidate that was not excluded has a verdict",
        "tables/candidates-00000.parquet",
    ),
    "a verdict on an excluded candidate": (
        lambda t: row(t, "candidates", 0, 1).update(excluded="copy"),
        "every verdict has a candidate that was not excluded",
        "tables/verdicts-00001.parquet",
    ),
    "a verdict twice": (
        lambda t: t["verdicts"][1].append(dict(row(t, "verdicts"))),
        "no verdict occurs twice",
        "tables/verdicts-00001.parquet",
    ),
    "another entropy before": (
        lambda t: row(t, "verdicts", 1).update(entropy_before=3.1, gain=(3.1 - 2.7) / 3.1),
        "every verdict starts from its position's entropy",
        "tables/verdicts-00000.parquet",
    ),
    "a gain that does not follow": (
        lambda t: row(t, "verdicts", 3).update(gain=0.11),
        "every gain follows from its entropies",
        "tables/verdicts-00000.parquet",
    ),
    "a pair kept below epsilon": (
        lambda t: row(t, "verdicts", 1, 1).update(kept=True, reason=None),
        "every verdict is kept or refused as its gain says",
        "tables/verdicts-00001.parquet",
    ),
    "a pair above epsilon refused": (
        lambda t: row(t, "verdicts", 2).update(kept=False, reason="gain-too-small"),
        "every verdict is kept or refused as its gain says",
        "tables/verdicts-00000.parquet",
    ),
    "a refusal without a reason": (
        lambda t: row(t, "verdicts", 1).update(reason=None),
        "every verdict that was not kept has a reason",
        "tables/verdicts-00000.parquet",
    ),
    "a negative of a chunk that was not kept": (
        lambda t: row(t, "negatives", 1).update(seed_chunk=row(t, "verdicts", 1)["chunk"]),
        "every negative's seed is a kept positive",
        "tables/negatives-00000.parquet",
    ),
    "a negative that is a positive": (
        lambda t: row(t, "negatives", 1).update(chunk=row(t, "verdicts")["chunk"], kept=True, reason=None),
        "no kept negative is a positive of its root",
        "tables/negatives-00000.parquet",
    ),
    "a row left out of a root that was not screened": (
        lambda t: t["unplaced"][0].append(
            {"root": 3, "kind": "root", "chunk": None, "doc": None, "tokens": 20, "reason": "no-positive"}
        ),
        "every unplaced row is of a screened root",
        "tables/unplaced-00000.parquet",
    ),
    "another token in a root": (
        lambda t: change_token(t, "root"),
        "every root span holds its root's tokens",
        "samples/samples-00000.parquet",
    ),
    "another token in a context": (
        lambda t: change_token(t, "negative"),
        "every context span holds its chunk's tokens",
        "samples/samples-00000.parquet",
    ),
    "another token as separator": (
        change_separator,
        "every sample is spans with separators between, in order",
        "samples/samples-00000.parquet",
    ),
    "a length that is not": (
        lambda t: row(t, "samples").update(length=130),
        "every sample's length and id follow from its tokens",
        "samples/samples-00000.parquet",
    ),
    "a positive that was never verified": (
        lambda t: replace_chunk(t, "positive"),
        "every positive was kept for a root of its sample",
        "samples/samples-00000.parquet",
    ),
    "a negative that was never found": (
        lambda t: replace_chunk(t, "negative"),
        "every negative was kept for a root of its sample",
        "samples/samples-00000.parquet",
    ),
    "a filler that was never drawn": (
        replace_filler,
        "every filler was kept for a root of its sample",
        "samples/samples-00000.parquet",
    ),
    "a positive cut at its front": (
        lambda t: cut(t, "positive", 1, 0),
        "contexts are cut at their front only",
        "samples/samples-00000.parquet",
    ),
    "a negative cut at its end": (
        lambda t: cut(t, "negative", 0, 1),
        "contexts are cut at their front only",
        "samples/samples-00000.parquet",
    ),
    "a root cut": (
        lambda t: cut(t, "root", 0, 1),
        "no root is cut",
        "samples/samples-00000.parquet",
    ),
    "a document among roots": (
        lambda t: span(t, "negative").update(kind="document"),
        "every span is of a kind that the version's tables account for",
        "samples/samples-00000.parquet",
    ),
    "a row left out of no root": (
        lambda t: t["unplaced"][0].append(
            {"root": None, "kind": "document", "chunk": None, "doc": 0, "tokens": 20, "reason": "sample-full"}
        ),
        "every unplaced row is of a screened root",
        "tables/unplaced-00000.parquet",
    ),
    "a positive that helps nothing": (
        lambda t: row(t, "samples")["dependencies"].pop(0),
        "every positive helps a position",
        "samples/samples-00000.parquet",
    ),
    "a probe root in a sample": (
        lambda t: row(t, "roots", 1).update(role="probe"),
        "every root span is a train root of this round",
        "samples/samples-00000.parquet",
    ),
    "a span of another document": (
        lambda t: span(t, "positive").update(doc_id="0" * 64),
        "every span names the document it comes from",
        "samples/samples-00000.parquet",
    ),
    "a dependency that was not verified": (
        lambda t: row(t, "samples")["dependencies"][0].update(t=6),
        "every dependency has a kept verdict",
        "samples/samples-00000.parquet",
    ),
    "a dependency with other entropies": (
        lambda t: row(t, "samples")["dependencies"][1].update(entropy_after=0.5),
        "every dependency has its verdict's entropies",
        "samples/samples-00000.parquet",
    ),
    "a dependency at another place": (
        lambda t: row(t, "samples")["dependencies"][1].update(position=90),
        "every dependency's position lies in its root at t",
        "samples/samples-00000.parquet",
    ),
    "a dependency at another distance": (
        lambda t: row(t, "samples")["dependencies"][1].update(distance=1),
        "every dependency's chunk stands before it at its distance",
        "samples/samples-00000.parquet",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_every_manipulation_of_a_signed_round_is_found_in_its_file(edit: str, home: Home) -> None:
    change, check, file = EDITS[edit]
    (built,) = build_rounds(home, 1, change=change)
    found = {finding.check: finding.file for finding in audit_version(home, built.version).failures}
    assert found.get(check) == f"{version_folder(built).relative_to(home.path)}/{file}", found


def test_a_round_with_random_chunks_in_place_of_negatives_passes(home: Home) -> None:
    (built,) = build_rounds(home, 1, change=fill_and_sign)
    assert not audit_version(home, built.version).failures
    assert built.manifest.tokens["filler"] > 0
    assert built.manifest.tokens["negative"] == 0


def fill_and_sign(tables: Shards) -> None:
    fill(tables)
    sample = row(tables, "samples")
    sample["sample_id"] = digest_json([sample["input_ids"], sample["segments"]])
