"""Exports: every format holds the version's samples, is carried on or refused, and its audit finds what was changed."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_from_disk

from storage.digests import digest_file
from storage.errors import InputError, IntegrityError, StoppedError
from storage.home import Home
from storage.versions import load_manifest, version_uri
from tasks.audit.checks import AuditReport
from tasks.exporting import exporting
from tasks.exporting.audit import audit_export
from tasks.exporting.exporting import export_version
from tasks.exporting.record import RECORD, UNFINISHED, is_export, read_record
from tasks.exporting.target import check_outside
from tests.published_world import PublishedWorld, publish_tables, publish_world
from tests.world import make_world

Rows = list[dict[str, Any]]
FORMATS = ("parquet", "jsonl", "datasets")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublishedWorld]:
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        yield publish_world(make_world(Home.open(folder / "home"), folder / "scratch", patch))


@pytest.fixture(scope="module")
def two_shards(published: PublishedWorld) -> str:
    """A version whose samples are in two files."""
    twice = {**published.refs, "samples": published.refs["samples"] * 2}
    return publish_tables(published.world, 2, twice)


def lines(path: Path) -> Rows:
    """JSON lines as any other program reads them."""
    with pa.input_stream(str(path), compression="zstd") as file:
        return [json.loads(line) for line in file.read().decode().splitlines()]


def problems(report: AuditReport) -> list[str]:
    return [finding.line for finding in report.findings if finding.status != "passed"]


def checked(folder: Path, home: Home | None) -> list[str]:
    return problems(audit_export(folder, home))


def test_parquet_is_the_version_file_by_file_without_a_second_copy(published: PublishedWorld, tmp_path: Path) -> None:
    home, folder = published.world.home, tmp_path / "out"
    record = export_version(home, published.version, folder, "parquet")
    source = home / version_uri(published.version)
    names = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert record.files.keys() == names
    for name in names:
        assert (folder / name).samefile(source / name)
        assert record.files[name].sha256 == digest_file(source / name)
    assert record.rows == len(published.rows("samples"))
    assert record.tokens == sum(row["length"] for row in published.rows("samples"))
    assert checked(folder, home) == checked(folder, None) == []
    copied = export_version(home, published.version, tmp_path / "copy", "parquet", copy=True)
    assert copied == record
    assert not any((tmp_path / "copy" / name).samefile(source / name) for name in names)


def test_jsonl_and_datasets_hold_every_sample_as_it_is(published: PublishedWorld, tmp_path: Path) -> None:
    home, samples = published.world.home, published.rows("samples")
    export_version(home, published.version, tmp_path / "jsonl", "jsonl")
    export_version(home, published.version, tmp_path / "datasets", "datasets")
    assert lines(tmp_path / "jsonl/samples/samples-00000.jsonl.zst") == samples
    loaded = load_from_disk(tmp_path / "datasets")
    assert list(loaded) == samples
    assert loaded.select([0]).to_list() == samples[:1]
    for format in ("jsonl", "datasets"):
        record = read_record(tmp_path / format)
        lengths = record.lengths
        assert lengths is not None
        assert (record.rows, lengths.least, lengths.most, lengths.mean) == (len(samples), 128, 128, 128.0)
        assert record.version == published.version == digest_file(tmp_path / format / "manifest.json")
        assert checked(tmp_path / format, home) == []
        (unknown,) = checked(tmp_path / format, None)
        assert unknown.startswith("not-checkable · the content is the version's")


def test_the_same_export_is_the_same_bytes_and_is_left_alone(published: PublishedWorld, tmp_path: Path) -> None:
    home = published.world.home
    for format in FORMATS:
        one = export_version(home, published.version, tmp_path / "one" / format, format)  # type: ignore[arg-type]
        two = export_version(home, published.version[:9], tmp_path / "two" / format, format)  # type: ignore[arg-type]
        assert one == two
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "one" / format).rglob("*")}
        assert export_version(home, published.version, tmp_path / "one" / format, format) == one  # type: ignore[arg-type]
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "one" / format).rglob("*")} == before


@pytest.mark.parametrize("format", FORMATS)
def test_an_interrupted_export_is_no_export_and_is_carried_on(
    published: PublishedWorld, two_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Any
) -> None:
    home, folder = published.world.home, tmp_path / "out"
    whole = export_version(home, two_shards, tmp_path / "whole", format)
    left = 0

    def stopping(description: str, **options: Any) -> Any:
        def advance(amount: float = 1) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise StoppedError("stopped;")

        return _given(advance)

    monkeypatch.setattr(exporting, "progress", stopping)
    done: list[int] = []
    for stop_at in (1, len(published.rows("samples")) + 2):
        left = stop_at
        with pytest.raises(StoppedError):
            export_version(home, two_shards, folder, format)
        assert not (folder / RECORD).exists()
        assert is_export(folder)
        with pytest.raises(InputError, match="was not finished"):
            audit_export(folder, home)
        if format == "datasets":
            with pytest.raises(FileNotFoundError):
                load_from_disk(folder)
        done.append(len(json.loads((folder / UNFINISHED).read_text())["shards"]))
    assert done == [0, 1]
    left = 0
    assert export_version(home, two_shards, folder, format) == whole
    assert not (folder / UNFINISHED).exists()
    assert checked(folder, home) == []


class _given:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __enter__(self) -> Any:
        return self.value

    def __exit__(self, *_: object) -> None:
        return None


def test_a_folder_with_other_content_is_refused_and_left_as_it_is(published: PublishedWorld, tmp_path: Path) -> None:
    home = published.world.home
    export_version(home, published.version, tmp_path / "export", "jsonl")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    shutil.copytree(tmp_path / "export", tmp_path / "visited")
    (tmp_path / "visited/notes.txt").write_text("mine")
    for name, format, reason in (
        ("full", "jsonl", r"holds other things \(thesis.txt\)"),
        ("file", "jsonl", "is a file"),
        ("export", "parquet", f"holds an export of version {published.version[:12]} as jsonl"),
        ("visited", "jsonl", r"holds other things \(notes.txt\)"),
    ):
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        with pytest.raises(InputError, match=reason):
            export_version(home, published.version, tmp_path / name, format)  # type: ignore[arg-type]
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    with pytest.raises(InputError, match="lies in the home"):
        check_outside(home, home / "versions/../export")


def test_a_damaged_export_is_made_again_and_a_damaged_version_gives_none(
    published: PublishedWorld, tmp_path: Path
) -> None:
    home, folder = published.world.home, tmp_path / "out"
    record = export_version(home, published.version, folder, "datasets")
    flip(folder / "data-00000-of-00001.arrow")
    assert export_version(home, published.version, folder, "datasets") == record
    assert checked(folder, home) == []
    away = tmp_path / "away"
    shutil.copytree(home.path, away)
    sample = next((away / version_uri(published.version) / "samples").glob("*.parquet"))
    flip(sample)
    for format in FORMATS:
        with pytest.raises(IntegrityError, match="was changed"):
            export_version(Home(away), published.version, tmp_path / f"bad-{format}", format)  # type: ignore[arg-type]
        assert not (tmp_path / f"bad-{format}" / RECORD).exists()


def flip(path: Path) -> None:
    """Changes one bit; the file gets blocks of its own first, since it may share them with the version."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("format", FORMATS)
def test_the_audit_names_every_file_that_was_changed_lost_or_added(
    published: PublishedWorld, tmp_path: Path, format: Any
) -> None:
    home, whole = published.world.home, tmp_path / "whole"
    record = export_version(home, published.version, whole, format, copy=True)
    edits: tuple[Callable[[Path], Any], ...] = (flip, Path.unlink, lambda path: path.write_bytes(b""))
    folder = tmp_path / "edited"
    names = sorted(record.files)[:: max(1, len(record.files) // 4)]
    for name in {*names, "manifest.json"}:
        for edit in edits:
            shutil.copytree(whole, folder)
            edit(folder / name)
            report = audit_export(folder, home)
            assert name in {finding.file for finding in report.failures}
            assert report.exit_code == 1
            shutil.rmtree(folder)
    shutil.copytree(whole, folder)
    (folder / "more.txt").write_text("more")
    assert [finding.file for finding in audit_export(folder, home).failures] == ["more.txt"]


def forge(folder: Path, name: str, data: bytes) -> None:
    """Replaces a file of an export and signs it in the record."""
    (folder / name).unlink()
    (folder / name).write_bytes(data)
    record = json.loads((folder / RECORD).read_text())
    record["files"][name] |= {"sha256": digest_file(folder / name), "bytes": len(data)}
    (folder / RECORD).write_text(json.dumps(record))


def test_an_export_that_was_forged_and_signed_is_not_the_version(published: PublishedWorld, tmp_path: Path) -> None:
    home, name = published.world.home, "samples/samples-00000.jsonl.zst"
    for number, edit in enumerate((_other_token, _other_entropy, _one_less)):
        folder = tmp_path / str(number)
        export_version(home, published.version, folder, "jsonl")
        rows = lines(folder / name)
        edit(rows)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        forge(folder, name, pa.compress(text.encode(), codec="zstd", asbytes=True))
        failed = {finding.check for finding in audit_export(folder, home).failures}
        assert "the content is the version's" in failed, edit
    folder = tmp_path / "parquet"
    export_version(home, published.version, folder, "parquet", copy=True)
    table = pq.read_table(folder / "samples/samples-00000.parquet")
    sink = io.BytesIO()
    pq.write_table(table.slice(1), sink)
    forge(folder, "samples/samples-00000.parquet", sink.getvalue())
    assert "the content is the version's" in {finding.check for finding in audit_export(folder, None).failures}


def _other_token(rows: Rows) -> None:
    rows[0]["input_ids"][3] += 1


def _other_entropy(rows: Rows) -> None:
    next(row for row in rows if row["dependencies"])["dependencies"][0]["entropy_after"] += 0.5


def _one_less(rows: Rows) -> None:
    rows.pop()


def test_records_that_are_none(published: PublishedWorld, tmp_path: Path) -> None:
    home, folder = published.world.home, tmp_path / "out"
    export_version(home, published.version, folder, "parquet")
    for text in ("", "{}", "[1]", (folder / RECORD).read_text().replace('"format": 1', '"format": 9')):
        (folder / RECORD).write_text(text)
        report = audit_export(folder, home)
        assert [finding.check for finding in report.failures] == ["export record"]
    assert not is_export(home / version_uri(published.version))
    assert not is_export(tmp_path / "nowhere")
    assert load_manifest(home, published.version).version == published.version
