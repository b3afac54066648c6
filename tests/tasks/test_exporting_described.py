"""``croissant.json`` in an export: it is that of the version, and an audit sees when it tells something else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from storage.errors import ConfigError
from storage.home import Home
from tasks.exporting.audit import audit_export
from tasks.exporting.exporting import export_version
from tasks.reporting.croissant import CROISSANT, write_croissant
from tests.rounds import build_round


def failures(folder: Path, home: Home | None) -> list[str]:
    return [finding.line for finding in audit_export(folder, home).failures]


def test_an_export_carries_the_description_of_its_files(home: Home, tmp_path: Path) -> None:
    built, folder = build_round(home), tmp_path / "out"
    record = export_version(home, built.version, folder, "parquet", croissant=True)
    path = folder / CROISSANT
    assert path.read_bytes() == write_croissant(home, built.version).read_bytes()
    report = audit_export(folder, home)
    assert not report.failures
    (finding,) = [f for f in report.findings if f.file == CROISSANT]
    assert finding.status == "passed"
    assert export_version(home, built.version, folder, "parquet") == record, "the folder is still that export"

    told = json.loads(path.read_text())
    for change, said in (
        ({"url": f"urn:sha256:{'0' * 64}"}, "does not describe version"),
        ({"distribution": told["distribution"][1:]}, "is not named"),
        ({"distribution": [told["distribution"][0] | {"sha256": "0" * 64}, *told["distribution"][1:]]}, "as it says"),
        ({"distribution": 7}, "is no description of files"),
    ):
        path.write_text(json.dumps(told | change))
        (line,) = failures(folder, home)
        assert said in line
        assert CROISSANT in line
    path.write_bytes(b"\xff")
    assert len(failures(folder, None)) == 1


def test_one_from_the_reports_may_be_copied_beside_an_export(home: Home, tmp_path: Path) -> None:
    built = build_round(home)
    for format in ("parquet", "jsonl"):
        export_version(home, built.version, tmp_path / format, format)  # type: ignore[arg-type]
        shutil.copy(write_croissant(home, built.version), tmp_path / format)
    assert not failures(tmp_path / "parquet", home)
    (line,) = failures(tmp_path / "jsonl", home)
    assert "is not in this export as it says" in line


def test_other_formats_have_no_files_it_could_describe(home: Home, tmp_path: Path) -> None:
    built = build_round(home)
    with pytest.raises(ConfigError, match="describes the Parquet files of a version") as caught:
        export_version(home, built.version, tmp_path / "out", "jsonl", croissant=True)
    assert "--format parquet" in caught.value.hint
    assert not (tmp_path / "out").exists()
