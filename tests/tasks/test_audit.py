"""The audit: a whole round passes, and whatever is wrong with one is found by the check that is about it, in the file
it is in.

Rounds are manipulated before they are signed, so every digest is right and only the content gives the manipulation
away.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from storage.campaigns import RoundRecord, record_round, start_campaign
from storage.errors import InputError
from storage.home import Home
from tasks.audit.checks import AuditReport, audit_version
from tests.rounds import BuiltRound, build_round, build_rounds, version_folder
from tests.world_by_hand import Row


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
    left_out = {finding.check for finding in report.findings if finding.status == "not-checkable"}
    assert left_out == {"MLflow run", "Prefect flow run that built it", "training consumed exactly this version"}
    assert audit_version(whole.home, "1").exit_code == 0


def test_the_report_is_json_and_says_the_counts(whole: BuiltRound) -> None:
    report = audit_version(whole.home, whole.version[:8])
    read = json.loads(report.model_dump_json())
    assert (read["version"], read["round"], read["exit_code"]) == (whole.version, 2, 0)
    assert [finding["check"] for finding in read["findings"]] == [finding.check for finding in report.findings]
    assert read["summary"].startswith(f"{sum(f.status == 'passed' for f in report.findings)} checks passed, 0 failed")


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
    (version_folder(built) / "manifest.json").unlink()
    assert failed(audit_version(built.home, "2")) == {"manifest": f"versions/{built.version[:16]}/manifest.json"}


def test_an_unknown_version_is_one_clear_line(home: Home) -> None:
    build_round(home)
    with pytest.raises(InputError, match="no dataset version begins with"):
        audit_version(home, "0000aaaa")
