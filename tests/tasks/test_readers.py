"""Broken input never stops a run, and every row is found again: as a document or with its reason."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import InputError
from tasks.corpus.documents import RawDocument
from tasks.corpus.quarantine import Refusal
from tasks.corpus.readers import ReadingConfig, Row, bounded_lines, read_rows
from tasks.corpus.sources import find_sources

CONFIG = ReadingConfig()


def read(path: Path, **columns: Any) -> list[Row]:
    config = ReadingConfig(**columns)
    return [row for file in find_sources([str(path)]).files for row in read_rows(file, config)]


def reasons(rows: list[Row]) -> list[str]:
    return [row.content.reason if isinstance(row.content, Refusal) else "document" for row in rows]


def documents(rows: list[Row]) -> list[RawDocument]:
    return [row.content for row in rows if isinstance(row.content, RawDocument)]


BROKEN_LINES = {
    b'{"text": "fine", "title": "One", "id": 7}': "document",
    b'{"text": "cut in the mid': "broken-json",
    b'{"text": null}': "null-text",
    b'{"text": 5}': "not-a-text",
    b'{"body": "elsewhere"}': "missing-column",
    b"[1, 2]": "not-an-object",
    b'{"text": "bad \xff byte"}': "not-utf8",
    b'{"text": "bad \xed\xa0\x80 bytes"}': "lone-surrogate",
    b'{"text": "' + b"x" * 9_000 + b'"}': "too-long",
    b"[" * 100_000: "too-long",
    b'{"a":' * 1_500: "broken-json",
    b'{"text": ""}': "document",
}


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.zst", "ndjson"])
def test_every_line_is_a_document_or_has_its_reason(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    data = b"\n".join(BROKEN_LINES) + b"\n"
    if suffix.endswith("gz"):
        path.write_bytes(gzip.compress(data))
    elif suffix.endswith("zst"):
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(data)
    else:
        path.write_bytes(data)
    rows = read(path, max_row_bytes=8_000)
    assert reasons(rows) == list(BROKEN_LINES.values())
    assert [row.number for row in rows] == list(range(len(BROKEN_LINES)))
    assert {row.source for row in rows} == {path.name}
    first = documents(rows)[0]
    assert (first.text, first.title, first.group, first.source) == ("fine", "One", "One", f"{path.name}#0")
    assert first.metadata == {"id": "7"}


def test_a_lone_surrogate_written_as_an_escape_reaches_normalisation(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "half \\ud800 a pair", "title": "\\udfff"}\n')
    (document,) = documents(read(path))
    assert "\ud800" in document.text
    document.title.encode()


def test_a_line_of_ten_megabytes_costs_no_more_memory_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "before"}\n{"text": "' + b"x" * 40_000_000 + b'"}\n{"text": "after"}\n')
    tracemalloc.start()
    rows = read(path, max_row_bytes=100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reasons(rows) == ["document", "too-long", "document"]
    refusal = rows[1].content
    assert isinstance(refusal, Refusal)
    assert refusal.detail == "40000012 bytes, expected at most 100000"
    assert peak < 8_000_000


@pytest.mark.parametrize("line", [b"short", b"12345678", b"123456789", b"x" * 100])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_bounded_lines_tell_the_length_and_keep_the_beginning(line: bytes, end: bytes) -> None:
    found = list(bounded_lines(io.BytesIO(line + end), 8))
    assert found == [(line[:8], len(line))]


def test_parquet_rows_with_bad_bytes_do_not_take_the_others_with_them(tmp_path: Path) -> None:
    bad = pa.array([b"fine", b"bad \xff", None, b"x" * 5_000], pa.binary()).view(pa.string())
    table = pa.table({"text": bad, "title": ["a", None, "c", "d"], "year": [1821, 2, 3, 4]})
    pq.write_table(table, tmp_path / "rows.parquet")
    rows = read(tmp_path / "rows.parquet", max_row_bytes=1_000, metadata=("year",))
    assert reasons(rows) == ["document", "not-utf8", "null-text", "too-long"]
    assert documents(rows)[0].metadata == {"year": "1821"}


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_every_arrow_text_type_is_text(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"body": pa.array(["one", "two"]).cast(kind)}), tmp_path / "rows.parquet")
    assert [d.text for d in documents(read(tmp_path / "rows.parquet", text="body"))] == ["one", "two"]


def test_a_folder_that_datasets_saved_is_read_in_its_order(tmp_path: Path) -> None:
    import datasets

    texts = {"train": [f"train {i}" for i in range(200)], "test": ["test 0"]}
    saved = datasets.DatasetDict({k: datasets.Dataset.from_dict({"text": v, "title": v}) for k, v in texts.items()})
    saved.save_to_disk(tmp_path / "both", num_shards={"train": 3, "test": 1})
    saved["train"].save_to_disk(tmp_path / "one")
    assert [d.text for d in documents(read(tmp_path / "both"))] == [*texts["train"], *texts["test"]]
    assert [d.text for d in documents(read(tmp_path / "one"))] == texts["train"]


def test_a_folder_of_texts_is_read_by_name_and_without_what_is_hidden(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.md").write_text("# B")
    (folder / "deep" / "a.rst").write_bytes("\ufeffA".encode())
    (folder / "bad.txt").write_bytes(b"\xff\xfe\x00")
    (folder / ".hidden.txt").write_text("no")
    (folder / "picture.png").write_bytes(b"png")
    sources = find_sources([str(folder)])
    rows = [row for file in sources.files for row in read_rows(file, CONFIG)]
    assert [row.source for row in rows] == ["notes/b.md", "notes/bad.txt", "notes/deep/a.rst"]
    assert reasons(rows) == ["document", "not-utf8", "document"]
    assert documents(rows)[1].text == "A"
    assert sources.ignored == 1


def test_the_readme_beside_a_dataset_is_no_document(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "rows.parquet")
    (tmp_path / "README.md").write_text("# a card")
    sources = find_sources([str(tmp_path)])
    assert [file.kind for file in sources.files] == ["parquet"]
    assert sources.ignored == 1


def test_two_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_text('{"text": "one"}\n')
    names = [file.name for file in find_sources([str(tmp_path / f / "rows.jsonl") for f in ("a", "b")]).files]
    assert names == ["rows.jsonl", "1:rows.jsonl"]


def test_a_missing_path_a_suffix_nobody_knows_and_an_empty_folder_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"input /nowhere is missing"):
        find_sources(["/nowhere"])
    with pytest.raises(InputError, match=r"suffix of rows.xlsx is not known, expected one of .parquet"):
        find_sources([str(tmp_path / "rows.xlsx")])
    with pytest.raises(InputError, match="holds no file to read"):
        find_sources([str(tmp_path / "empty")])


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["one"], "n": [1]}), tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text('{"body": "one"}\n' * 5)
    for name in ("rows.parquet", "rows.jsonl"):
        with pytest.raises(InputError, match=r"'text'.*body"):
            read(tmp_path / name)
    with pytest.raises(InputError, match=r"holds int64, expected text"):
        read(tmp_path / "rows.parquet", text="n")


def test_damaged_files_are_one_clear_error(tmp_path: Path) -> None:
    lines = b"".join(json.dumps({"text": f"text {i}"}).encode() + b"\n" for i in range(5_000))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(lines)[:-2_000])
    (tmp_path / "not.parquet").write_bytes(b"PAR1 no")
    for name in ("cut.jsonl.gz", "not.parquet"):
        with pytest.raises(InputError, match=rf"{name} can't be read after row \d+"):
            read(tmp_path / name)
