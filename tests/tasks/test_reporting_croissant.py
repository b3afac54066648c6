"""croissant.json against its own library's reader: it names every file, and the records are the tables' rows."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from storage.errors import ConfigError
from storage.home import Home
from storage.schemas import TABLES
from tasks.reporting.croissant import write_croissant
from tests.rounds import build_round, version_folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of rdflib, inside mlcroissant's reader
def test_the_library_reads_the_version_by_it(home: Home, tmp_path: Path) -> None:
    import mlcroissant as mlc

    built = build_round(home)
    path = write_croissant(home, built.version)
    described = json.loads(path.read_text())
    files = {part["@id"]: part for part in described["distribution"] if part["@type"] == "cr:FileObject"}
    assert {name: part["sha256"] for name, part in files.items()} == {
        name: entry.sha256 for name, entry in built.manifest.files.items()
    }
    assert write_croissant(home, built.version[:8]).read_text() == path.read_text()
    assert not (version_folder(built) / path.name).exists(), "a version holds what its manifest names"

    copy = tmp_path / "copy"
    shutil.copytree(version_folder(built), copy)
    shutil.copy(path, copy)
    data = mlc.Dataset(jsonld=str(copy / path.name))
    verdicts = [row for shard in built.tables["verdicts"] for row in shard]
    found = list(data.records("verdicts"))
    columns = [column.name for column in TABLES["verdicts"].columns]
    assert len(found) == len(verdicts)
    for name in ("root", "t", "chunk", "kept"):
        assert [record[f"verdicts/{name}"] for record in found] == [row[name] for row in verdicts]
    assert list(found[0]) == [f"verdicts/{name}" for name in columns]
    (sample,) = data.records("samples")
    (row,) = built.tables["samples"][0]
    assert list(sample["samples/input_ids"]) == row["input_ids"]


def test_without_the_library_the_error_says_what_to_install(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build_round(home)
    monkeypatch.setitem(sys.modules, "mlcroissant", None)
    with pytest.raises(ConfigError, match=r"policylong\[croissant\]"):
        write_croissant(home, built.version)
