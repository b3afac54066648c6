"""The audit: a whole round passes, and whatever is wrong with one is found by the check that is about it, in the file
it is in.

Rounds are manipulated before they are signed, so every digest is right and only the content gives the manipulation
away.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.campaigns import RoundRecord, record_round, start_campaign
from storage.errors import InputError
from storage.home import Home
from tasks.audit import AuditReport, audit_version
from tests.rounds import BuiltRound, Row, Shards, build_round, build_rounds, chunks, documents, tokens, version_folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> BuiltRound:
    return build_rounds(Home.open(tmp_path_factory.mktemp("whole") / "home"), 2)[-1]


@pytest.fixture
def built(whole: BuiltRound, tmp_path: Path) -> BuiltRound:
    """The whole round in a home of its own that a test may damage."""
    shutil.copytree(whole.home.path, tmp_path / "copy")
    return BuiltRound(Home.open(tmp_path / "copy"), whole.version, whole.manifest, whole.files, whole.tables)


def failed(report: AuditReport) -> dict[str, str | None]:
    return {finding.check: finding.file for finding in report.failures}


def status(report: AuditReport, check: str) -> str:
    return next(finding.status for finding in report.findings if finding.check == check)


def flip(path: Path, bit: int = 20) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << (bit % 8)
    path.unlink()
    path.write_bytes(data)


def test_a_whole_round_passes_every_check_and_leaves_none_out(whole: BuiltRound) -> None:
    report = audit_version(whole.home, "2")
    assert failed(report) == {}
    assert report.exit_code == 0
    assert (report.version, report.round) == (whole.version, 2)
    assert [f.line for f in report.findings if f.status == "not-checkable" and f.check != "MLflow run"] == []
    assert audit_version(whole.home, "1").exit_code == 0


def test_the_report_is_json_and_says_the_counts(whole: BuiltRound) -> None:
    report = audit_version(whole.home, whole.version[:8])
    read = json.loads(report.model_dump_json())
    assert (read["version"], read["round"], read["exit_code"]) == (whole.version, 2, 0)
    assert [finding["check"] for finding in read["findings"]] == [finding.check for finding in report.findings]
    assert read["summary"].startswith(f"{sum(f.status == 'passed' for f in report.findings)} checks passed, 0 failed")


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
        "every kept gain is above epsilon = 0.4",
        "tables/verdicts-00001.parquet",
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
            {"root": 3, "kind": "root", "chunk": None, "tokens": 20, "reason": "no-positive"}
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
    found = failed(audit_version(home, built.version))
    assert found.get(check) == f"{version_folder(built).relative_to(home.path)}/{file}", found


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"funnel": {"roots": 4}}, "funnel count roots"),
        ({"tokens": {"total": 1}}, "tokens count total"),
        ({"embedder": "f" * 64}, "embedder of corpus and round"),
        ({"round": 3}, "parent of round 3"),
        ({"parent_version": None}, "parents"),
        ({"parent_version": None, "parent_policy": None}, "round 2 starts from a base model"),
        ({"parent_policy": "a" * 64}, "screening policy was trained from the parent on the parent version"),
    ],
)
def test_a_signed_manifest_that_says_something_else_is_found(changes: Row, check: str, home: Home) -> None:
    built = build_rounds(home, 2, manifest_changes=changes)[-1]
    assert check in failed(audit_version(home, built.version))


def test_one_flipped_bit_in_any_file_of_the_round_gives_exit_code_1_and_its_name(built: BuiltRound) -> None:
    for path in sorted(path for path in version_folder(built).rglob("*") if path.is_file()):
        data = path.read_bytes()
        flip(path)
        report = audit_version(built.home, built.version)
        assert report.exit_code == 1
        assert path.relative_to(built.home.path).as_posix() in failed(report).values()
        path.write_bytes(data)
    assert audit_version(built.home, built.version).exit_code == 0


@pytest.mark.parametrize(
    ("pattern", "check"),
    [
        ("corpora/*/chunks.parquet", "corpus file"),
        ("corpora/*/corpus.json", "corpus"),
        ("policies/{policy}/model.safetensors", "screening policy"),
        ("policies/{policy}/tokenizer.json", "screening policy"),
        ("policies/{parent}/model.safetensors", "parent policy"),
        ("policies/{next}/model.safetensors", "policy trained on this version"),
        ("versions/{version}/tables/verdicts-00000.parquet", "parent of round 2"),
        ("versions/{version}/manifest.json", "parent of round 2"),
    ],
)
def test_one_flipped_bit_in_what_a_round_comes_from_is_named(pattern: str, check: str, built: BuiltRound) -> None:
    campaign = json.loads((built.home / "campaigns/world.json").read_text())
    names = {
        "policy": built.manifest.policy[:16],
        "parent": str(built.manifest.parent_policy)[:16],
        "next": campaign["rounds"][1]["next_policy"][:16],
        "version": str(built.manifest.parent_version)[:16],
    }
    path = next(built.home.path.glob(pattern.format(**names)))
    flip(path)
    report = audit_version(built.home, built.version)
    assert failed(report) == {check: path.relative_to(built.home.path).as_posix()}


def test_a_campaign_that_gives_the_round_another_number_is_found(built: BuiltRound) -> None:
    start_campaign(built.home, "other", {})
    record = RoundRecord(round=5, version=built.version, policy=built.manifest.policy)
    record_round(built.home, "other", record)
    assert failed(audit_version(built.home, built.version)) == {"campaign record": "campaigns/other.json"}


def test_what_is_not_on_this_machine_is_not_checkable_and_no_failure(whole: BuiltRound, tmp_path: Path) -> None:
    elsewhere = Home.open(tmp_path / "elsewhere")
    folder = version_folder(whole).relative_to(whole.home.path)
    shutil.copytree(whole.home / folder.as_posix(), elsewhere / folder.as_posix())
    report = audit_version(elsewhere, whole.version)
    assert failed(report) == {}
    for check in ("corpus", "screening policy", "parent of round 2", "campaign record", "spans and dependencies"):
        assert status(report, check) == "not-checkable"
    assert status(report, "every root span holds its root's tokens") == "passed"
    assert status(report, "every context span holds its chunk's tokens") == "not-checkable"


def test_a_damaged_file_is_the_failure_and_what_it_would_prove_is_not_checkable(built: BuiltRound) -> None:
    (version_folder(built) / "tables/verdicts-00000.parquet").unlink()
    report = audit_version(built.home, built.version)
    assert len(report.failures) == 1
    assert status(report, "counts, tables and samples") == "not-checkable"
    (version_folder(built) / "manifest.json").write_bytes(b"not JSON")
    report = audit_version(built.home, built.version)
    assert (report.exit_code, report.round) == (1, None)


def test_an_unknown_version_is_one_clear_line(home: Home) -> None:
    build_round(home)
    with pytest.raises(InputError, match="no dataset version begins with"):
        audit_version(home, "0000aaaa")
