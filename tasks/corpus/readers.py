"""Rows of the user's files, one at a time: each is a document or a refusal with its reason.

Memory is bounded by ``max_row_bytes`` and a batch of rows. A row that can't be read never stops the others; a file
that can't be read is one clear error.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from storage.errors import InputError
from tasks.corpus.documents import RawDocument
from tasks.corpus.quarantine import Refusal, printable
from tasks.corpus.sources import SourceFile

ROWS_PER_BATCH = 64
ROWS_UNTIL_COLUMN = 1_000
"""JSONL rows read before a text column that none of them has is an error."""
_BLOCK = 1 << 20


class ReadingConfig(BaseModel):
    """Which columns of a table make a document, and how long a row may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = Field("text", description="Column of the text.")
    id: str | None = Field(None, description="Column of an id kept as metadata; none: `id` where there is one.")
    title: str | None = Field(None, description="Column of the title; none: `title` where there is one.")
    group: str | None = Field(None, description="Column of the unit of the split; none: the title, else the document.")
    metadata: tuple[str, ...] = Field((), description="Further columns kept as text.")
    max_row_bytes: int = Field(8_000_000, ge=1_000, description="A longer row is refused unread. Bytes. Ours.")

    def optional(self, present: Sequence[str]) -> dict[str, str]:
        """{role: column} of id, title, group and further columns among those present."""
        wanted = {
            "id": self.id or "id",
            "title": self.title or "title",
            "group": self.group or "",
            **{f"metadata:{name}": name for name in self.metadata},
        }
        return {role: column for role, column in wanted.items() if column in present}

    def named(self) -> list[str]:
        """Every column that the configuration names, the text's first."""
        return [self.text, *(c for c in (self.id, self.title, self.group, *self.metadata) if c)]


@dataclass(frozen=True, slots=True)
class Row:
    """A row as read: where it stood, and the document or the refusal."""

    source: str
    number: int
    content: RawDocument | Refusal


def read_rows(file: SourceFile, config: ReadingConfig) -> Iterator[Row]:
    """The rows of one file, numbered from 0.

    Raises ``InputError`` when the file can't be opened or is damaged, or has no such column.
    """
    readers = {"parquet": _parquet, "arrow": _arrow, "jsonl": _jsonl, "text": _text}
    number = 0
    try:
        for content in readers[file.kind](file, config):
            yield Row(file.name, number, content)
            number += 1
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise InputError(
            f"{file.name} can't be read after row {number} ({_one_line(error)}).", hint="Fetch or write the file again."
        ) from error


def _one_line(error: BaseException) -> str:
    return printable(" ".join(str(error).split()) or type(error).__name__)


def _decoded(data: bytes) -> str | Refusal:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        excerpt = data[:400].decode("utf-8", "replace")
        if _is_surrogate(data[error.start : error.start + 3]):
            return Refusal("lone-surrogate", f"a surrogate's bytes at byte {error.start}", excerpt)
        return Refusal("not-utf8", f"byte 0x{data[error.start]:02x} at byte {error.start}", excerpt)


def _is_surrogate(three: bytes) -> bool:
    return len(three) == 3 and three[0] == 0xED and 0xA0 <= three[1] <= 0xBF and 0x80 <= three[2] <= 0xBF


def _too_long(length: int, limit: int, head: bytes) -> Refusal:
    return Refusal("too-long", f"{length} bytes, expected at most {limit}", head[:400].decode("utf-8", "replace"))


def _document(file: SourceFile, number: int, text: str, labels: Mapping[str, str]) -> RawDocument:
    title = labels.get("title", "")
    metadata = {
        role.removeprefix("metadata:"): value for role, value in labels.items() if role not in ("title", "group")
    }
    return RawDocument(
        text=text,
        source=f"{file.name}#{number}",
        title=title,
        group=labels.get("group") or title,
        metadata=metadata,
    )


def _label(value: object) -> str:
    """A value of a side column as text that can be stored and hashed."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "replace").decode("utf-8").strip()


def _text(file: SourceFile, config: ReadingConfig) -> Iterator[RawDocument | Refusal]:
    size = file.path.stat().st_size
    if size > config.max_row_bytes:
        with file.path.open("rb") as stream:
            yield _too_long(size, config.max_row_bytes, stream.read(400))
        return
    text = _decoded(file.path.read_bytes())
    if isinstance(text, Refusal):
        yield text
    else:
        yield RawDocument(text=text, source=file.name, title=Path(file.name).stem, group=file.name)


def _parquet(file: SourceFile, config: ReadingConfig) -> Iterator[RawDocument | Refusal]:
    with pq.ParquetFile(file.path) as table:
        _check_columns(file, table.schema_arrow, config)
        roles = config.optional(table.schema_arrow.names)
        columns = sorted({config.text, *roles.values()})
        number = 0
        for batch in table.iter_batches(batch_size=ROWS_PER_BATCH, columns=columns):
            yield from _of_batch(file, batch, number, roles, config)
            number += batch.num_rows


def _arrow(file: SourceFile, config: ReadingConfig) -> Iterator[RawDocument | Refusal]:
    with pa.memory_map(str(file.path)) as source, pa.ipc.open_stream(source) as stream:
        _check_columns(file, stream.schema, config)
        roles = config.optional(stream.schema.names)
        number = 0
        for whole in stream:
            for start in range(0, whole.num_rows, ROWS_PER_BATCH):
                batch = whole.slice(start, ROWS_PER_BATCH)
                yield from _of_batch(file, batch, number, roles, config)
                number += batch.num_rows


def _check_columns(file: SourceFile, schema: pa.Schema, config: ReadingConfig) -> None:
    for column in config.named():
        if column not in schema.names:
            raise InputError(
                f"{file.name} has no column {column!r}, it has {', '.join(schema.names)}.",
                hint="Name the column with --text-column (or columns.text in a preset).",
            )
    found = schema.field(config.text).type
    value = found.value_type if pa.types.is_dictionary(found) else found
    if not (_is_text(value) or pa.types.is_null(value)):
        raise InputError(
            f"column {config.text!r} of {file.name} holds {found}, expected text.", hint="Name another column."
        )


def _is_text(kind: pa.DataType) -> bool:
    checks = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
    )
    return any(check(kind) for check in checks)


def _of_batch(
    file: SourceFile, batch: pa.RecordBatch, first: int, roles: Mapping[str, str], config: ReadingConfig
) -> Iterator[RawDocument | Refusal]:
    # As bytes: a file may claim to hold UTF-8 and not do so, and one bad row must not take the others with it.
    texts = _as_bytes(batch.column(config.text))
    sides = {role: _as_bytes(batch.column(column)) for role, column in roles.items()}
    for offset in range(batch.num_rows):
        data = texts[offset].as_py()
        if data is None:
            yield Refusal("null-text")
            continue
        if len(data) > config.max_row_bytes:
            yield _too_long(len(data), config.max_row_bytes, data)
            continue
        text = _decoded(data)
        if isinstance(text, Refusal):
            yield text
            continue
        labels = {role: _label(value) for role, side in sides.items() if (value := side[offset].as_py()) is not None}
        yield _document(file, first + offset, text, labels)


def _as_bytes(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary()) if _is_text(column.type) else column


def _jsonl(file: SourceFile, config: ReadingConfig) -> Iterator[RawDocument | Refusal]:
    lacking: set[str] = set()
    found = False
    number = 0
    with _opened(file.path) as stream:
        for head, length in bounded_lines(stream, config.max_row_bytes):
            if not head.strip():
                continue
            row = _too_long(length, config.max_row_bytes, head) if length > config.max_row_bytes else _parsed(head)
            if isinstance(row, dict):
                found = found or config.text in row
                lacking.update(() if found else sorted(row)[:20])
            if lacking and not found and number + 1 >= ROWS_UNTIL_COLUMN:
                break
            yield _of_object(file, number, row, config) if isinstance(row, dict) else row
            number += 1
    if not found and lacking:
        raise InputError(
            f"no row of {file.name} has a column {config.text!r}, they have {', '.join(sorted(lacking)[:20])}.",
            hint="Name the column with --text-column (or columns.text in a preset).",
        )


def bounded_lines(stream: IO[bytes], limit: int) -> Iterator[tuple[bytes, int]]:
    """(line without its end, its length) of each line; of a line longer than ``limit`` bytes only that much is kept."""
    while line := stream.readline(limit + 2):
        head = line.rstrip(b"\r\n")
        length = len(head)
        while not line.endswith(b"\n") and (line := stream.readline(_BLOCK)):
            length += len(line.rstrip(b"\r\n"))
        yield head[:limit], length


def _opened(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return io.BufferedReader(gzip.open(path, "rb"), _BLOCK)
    if path.suffix.lower() == ".zst":
        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path), "rb"), "zstd"), _BLOCK)
    return path.open("rb")


def _parsed(line: bytes) -> dict[str, Any] | Refusal:
    text = _decoded(line)
    if isinstance(text, Refusal):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Refusal("broken-json", str(error), text)
    if not isinstance(value, dict):
        return Refusal("not-an-object", f"found {type(value).__name__}", text)
    return value


def _of_object(file: SourceFile, number: int, row: Mapping[str, Any], config: ReadingConfig) -> RawDocument | Refusal:
    if config.text not in row:
        return Refusal("missing-column", f"columns: {', '.join(map(str, row))}")
    text = row[config.text]
    if text is None:
        return Refusal("null-text")
    if not isinstance(text, str):
        return Refusal("not-a-text", f"found {type(text).__name__}", str(text))
    labels = {role: _label(row[name]) for role, name in config.optional(list(row)).items() if row[name] is not None}
    return _document(file, number, text, labels)
