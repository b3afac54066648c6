"""Tables on disk: Parquet with fixed settings, written in a stream, complete or not there, checked against the schemas.

The settings (row groups of at most 1,024 rows or about 8 million characters or tokens, zstd level 3, no dictionaries)
are fixed because the digest of a file is its identity: the same rows give the same bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from storage.digests import digest_file
from storage.errors import IntegrityError
from storage.files import replacing
from storage.refs import Ref
from storage.schemas import TABLES, TableSchema

ROWS_PER_GROUP = 1024
UNITS_PER_GROUP = 8_000_000
KEPT_BYTES = 64 * 2**20
"""Bytes of row groups that a reader of single rows keeps. Ours."""
Rows = Iterable[Mapping[str, Any]]


def write_table(home: Path, uri: str, schema: TableSchema, rows: Rows | pl.DataFrame) -> Ref:
    """Writes a whole table below ``home`` and returns its ref; rows may be a stream, memory holds one row group.

    Raises ``ValueError`` when a row does not fit the schema (a defect of the caller) and ``ResourceError`` on a full
    disk.
    """
    return _write_groups(home, uri, schema, _batches(schema, rows))


def write_batches(home: Path, uri: str, schema: TableSchema, batches: Iterable[pa.RecordBatch]) -> Ref:
    """``write_table`` for rows that are Arrow batches of one row each: the same rows give the same bytes.

    Raises as ``write_table`` does.
    """
    return _write_groups(home, uri, schema, _grouped(schema, batches))


def _write_groups(home: Path, uri: str, schema: TableSchema, groups: Iterable[pa.Table]) -> Ref:
    count = 0
    with replacing(home / uri) as temporary:
        with pq.ParquetWriter(
            temporary,
            schema.arrow,
            compression="zstd",
            compression_level=3,
            use_dictionary=False,
            write_statistics=True,
        ) as writer:
            for group in groups:
                count += group.num_rows
                writer.write_table(group, row_group_size=ROWS_PER_GROUP)
        digest = digest_file(temporary)
    return Ref(uri=uri, sha256=digest, rows=count, table=schema.name)


def _grouped(schema: TableSchema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    pending: list[pa.RecordBatch] = []
    units = 0
    for batch in batches:
        pending.append(batch)
        units += sum(_units(column) for column in batch.columns)
        if len(pending) == ROWS_PER_GROUP or units >= UNITS_PER_GROUP:
            yield _checked(schema, pa.Table.from_batches(pending, schema.arrow).combine_chunks())
            pending, units = [], 0
    if pending:
        yield _checked(schema, pa.Table.from_batches(pending, schema.arrow).combine_chunks())


def _units(column: pa.Array) -> int:
    """What a row of rows counts for it: characters of a text, elements of a list."""
    if pa.types.is_string(column.type):
        return sum(len(text) for text in column.to_pylist() if text is not None)
    return len(column.flatten()) if pa.types.is_list(column.type) else 0


def _batches(schema: TableSchema, rows: Rows | pl.DataFrame) -> Iterator[pa.Table]:
    if isinstance(rows, pl.DataFrame):
        table = rows.select([c.name for c in schema.columns]).to_arrow().cast(schema.arrow)
        for start in range(0, table.num_rows, ROWS_PER_GROUP):
            yield _checked(schema, table.slice(start, ROWS_PER_GROUP).combine_chunks())
        return
    pending: list[Mapping[str, Any]] = []
    units = 0
    for row in rows:
        pending.append(row)
        units += sum(len(value) for value in row.values() if isinstance(value, Sized))
        if len(pending) == ROWS_PER_GROUP or units >= UNITS_PER_GROUP:
            yield _from_rows(schema, pending)
            pending, units = [], 0
    if pending:
        yield _from_rows(schema, pending)


def _from_rows(schema: TableSchema, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    arrays = [pa.array([row[c.name] for row in rows], type=c.type) for c in schema.columns]
    return _checked(schema, pa.Table.from_arrays(arrays, schema=schema.arrow))


def _checked(schema: TableSchema, table: pa.Table) -> pa.Table:
    for column in schema.columns:
        if not column.nullable and table.column(column.name).null_count:
            raise ValueError(f"table {schema.name}: column {column.name} has a null")
    return table


def check_ref(home: Path, ref: Ref) -> Path:
    """The path of a ref's file after its bytes were hashed again.

    Raises ``IntegrityError`` naming the file when it is missing or its digest differs.
    """
    path = home / ref.uri
    if not path.is_file():
        raise IntegrityError(
            f"{ref.uri} is missing (table {ref.table}).", hint="Run the same command again to make it anew."
        )
    found = digest_file(path)
    if found != ref.sha256:
        raise IntegrityError(
            f"{ref.uri} was changed: sha256 {found[:12]}, expected {ref.sha256[:12]}.",
            hint="Run the same command again to make it anew.",
        )
    return path


def check_unchanged(home: Path, ref: Ref) -> None:
    """``check_ref`` for a file that many steps read: hashed once in this process while the file system shows no change.

    Raises as ``check_ref`` does.
    """
    try:
        found = (home / ref.uri).stat()
    except OSError:
        check_ref(home, ref)
        return
    _check_once(home, ref, found.st_ino, found.st_size, found.st_ctime_ns)


@lru_cache(maxsize=256)
def _check_once(home: Path, ref: Ref, number: int, size: int, changed: int) -> None:
    check_ref(home, ref)


def open_table(home: Path, ref: Ref) -> pq.ParquetFile:
    """The Parquet file of a ref; raises ``IntegrityError`` when its columns are not the schema's."""
    path = home / ref.uri
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise IntegrityError(
            f"{ref.uri} can't be read ({error}).", hint="policylong audit names damaged files."
        ) from error
    expected = TABLES[ref.table].arrow
    if file.schema_arrow.names != expected.names:
        raise IntegrityError(f"{ref.uri} has columns {file.schema_arrow.names}, expected {expected.names}.")
    return file


def read_table(home: Path, ref: Ref, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """A whole table (or some columns) as a polars frame."""
    with open_table(home, ref) as file:
        frame = pl.from_arrow(file.read(columns=list(columns) if columns else None))
    assert isinstance(frame, pl.DataFrame)
    return frame


def read_tables(home: Path, refs: Sequence[Ref], schema: TableSchema) -> pl.DataFrame:
    """Several tables of one schema, in order, as one frame; an empty frame when there are none."""
    empty = pl.from_arrow(schema.arrow.empty_table())
    assert isinstance(empty, pl.DataFrame)
    return pl.concat([empty, *(read_table(home, ref) for ref in refs)])


class RowReader:
    """Reads single rows of a table by number, a row group at a time.

    The groups read last are kept as Arrow tables, up to ``kept_bytes`` bytes (always the last one), so memory is
    bounded whatever the size of a row.
    """

    def __init__(
        self, home: Path, ref: Ref, columns: Sequence[str] | None = None, *, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._file = open_table(home, ref)
        self._columns = list(columns) if columns else None
        self._kept: OrderedDict[int, pa.Table] = OrderedDict()
        self._limit, self._bytes = kept_bytes, 0
        self._starts = [0]
        for group in range(self._file.num_row_groups):
            self._starts.append(self._starts[-1] + self._file.metadata.row_group(group).num_rows)
        self.rows = self._starts[-1]

    def __getitem__(self, row: int) -> dict[str, Any]:
        """The row as a dict; raises ``IndexError`` outside the table."""
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} of a table of {self.rows}")
        group = bisect_right(self._starts, row) - 1
        place = row - self._starts[group]
        return {name: column[place].as_py() for name, column in zip(*self._group(group), strict=True)}

    def _group(self, number: int) -> tuple[list[str], list[pa.ChunkedArray]]:
        if number in self._kept:
            self._kept.move_to_end(number)
        else:
            group = self._file.read_row_group(number, columns=self._columns).combine_chunks()
            self._kept[number] = group
            self._bytes += group.nbytes
            while self._bytes > self._limit and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        table = self._kept[number]
        return table.column_names, table.columns

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._file.iter_batches(batch_size=64, columns=self._columns):
            yield from batch.to_pylist()

    def __len__(self) -> int:
        return self.rows

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
