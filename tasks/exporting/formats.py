"""Files of an export: JSON lines under zstd, Arrow streams as ``datasets`` writes them, Parquet; each written whole or
not at all, from a stream, and read back row by row.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.digests import digest_file, short
from storage.errors import IntegrityError
from storage.files import replacing, write_bytes
from storage.schemas import TableSchema
from storage.tables import write_table
from tasks.exporting.record import ExportFile, Format, Row

ROWS_AT_ONCE = 8
"""Samples in memory at once: at the paper's length a million tokens."""
_BLOCK = 1 << 20
SUFFIXES: dict[Format, str] = {"parquet": ".parquet", "jsonl": ".jsonl.zst", "datasets": ".arrow"}


def file_entry(path: Path, rows: int | None = None) -> ExportFile:
    """A file's digest, size and rows."""
    return ExportFile(sha256=digest_file(path), bytes=path.stat().st_size, rows=rows)


def shard_file(format: Format, shard: int, shards: int) -> str:
    """The name of a shard of samples in an export."""
    if format == "datasets":
        return f"data-{shard:05d}-of-{shards:05d}.arrow"
    return f"samples/samples-{shard:05d}{SUFFIXES[format]}"


def write_rows(folder: Path, name: str, format: Format, schema: TableSchema, rows: Iterable[Row]) -> ExportFile:
    """Writes a shard; ``rows`` fit ``schema`` and may be a stream. Raises ``ResourceError`` on a full disk."""
    if format == "parquet":
        ref = write_table(folder, name, schema, rows)
        return ExportFile(sha256=ref.sha256, bytes=(folder / name).stat().st_size, rows=ref.rows)
    written = _write_arrow if format == "datasets" else _write_jsonl
    return file_entry(folder / name, written(folder / name, schema, rows))


def _write_jsonl(path: Path, schema: TableSchema, rows: Iterable[Row]) -> int:
    names = [column.name for column in schema.columns]
    written = 0
    with json_lines(path) as write:
        for row in rows:
            write({name: row[name] for name in names})
            written += 1
    return written


@contextmanager
def json_lines(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A file of JSON lines under zstd; gives what writes one line. The file is there once the block ends well."""
    with replacing(path) as temporary:
        with pa.OSFile(str(temporary), "wb") as raw, pa.CompressedOutputStream(raw, "zstd") as stream:

            def write(row: Mapping[str, Any]) -> None:
                line = json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
                stream.write(f"{line}\n".encode())

            yield write


def _write_arrow(path: Path, schema: TableSchema, rows: Iterable[Row]) -> int:
    arrow = hub_features(schema).arrow_schema
    waiting, number = iter(rows), 0
    with replacing(path) as temporary:
        with pa.OSFile(str(temporary), "wb") as raw, pa.ipc.new_stream(raw, arrow) as stream:
            while batch := list(islice(waiting, ROWS_AT_ONCE)):
                number += len(batch)
                stream.write_batch(pa.RecordBatch.from_pylist(batch, schema=arrow))
    return number


def hub_features(schema: TableSchema) -> Any:
    """A table's columns as ``datasets.Features``."""
    from datasets import Features

    return Features.from_arrow_schema(schema.arrow)


def write_dataset_files(folder: Path, schema: TableSchema, names: Iterable[str], fingerprint: str) -> None:
    """``dataset_info.json`` and ``state.json``: what ``datasets.load_from_disk`` reads beside the Arrow files."""
    features = hub_features(schema).to_dict()
    info = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": short(fingerprint, 16),
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": "train",
    }
    for name, value in (("dataset_info.json", info), ("state.json", state)):
        write_bytes(folder / name, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def read_rows(path: Path, format: Format) -> Iterator[Row]:
    """The rows of a shard, one after the other; raises ``IntegrityError`` where the file can't be read."""
    read = {"parquet": _read_parquet, "datasets": _read_arrow, "jsonl": read_lines}[format]
    try:
        yield from read(path)
    except (OSError, pa.ArrowException, ValueError) as error:
        problem = " ".join(str(error).split())[:200]
        raise IntegrityError(f"{path.name} can't be read as {format} ({problem}).") from error


def _read_parquet(path: Path) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
            yield from batch.to_pylist()


def _read_arrow(path: Path) -> Iterator[Row]:
    with pa.memory_map(str(path)) as raw, pa.ipc.open_stream(raw) as stream:
        for batch in stream:
            yield from batch.to_pylist()


def read_lines(path: Path) -> Iterator[Row]:
    """The rows of a file of JSON lines under zstd."""
    with io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path), "rb"), "zstd"), _BLOCK) as file:
        for line in file:
            yield json.loads(line)
