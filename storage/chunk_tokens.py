"""The tokens of a corpus's chunks as an Arrow file that is mapped into memory: any chunk's ids without decoding its
neighbours', whatever the size of the corpus.

    tokens.arrow    chunk_id, doc, input_ids; a row per chunk, in the order of the chunks table

The file's digest is its identity like a table's: batches have a fixed number of rows and are not compressed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.digests import digest_file
from storage.errors import IntegrityError
from storage.files import replacing
from storage.refs import Ref

TABLE = "tokens"
ROWS_PER_BATCH = 8192
SCHEMA = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("doc", pa.int32(), nullable=False),
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
    ]
)
"""SHA-256 of the chunk as in ``chunks``, row of its document, ids of the policy's tokenizer without special tokens."""
TokenRow = tuple[str, int, Sequence[int]]
"""chunk_id, row of the document, token ids."""


def write_chunk_tokens(home: Path, uri: str, rows: Iterable[TokenRow]) -> Ref:
    """Writes the file below ``home`` and returns its ref; memory holds one batch.

    Raises ``ResourceError`` on a full disk.
    """
    count = 0
    with replacing(home / uri) as temporary:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            pending: list[TokenRow] = []
            for row in rows:
                pending.append(row)
                if len(pending) == ROWS_PER_BATCH:
                    writer.write_batch(_batch(pending))
                    count += len(pending)
                    pending = []
            if pending:
                writer.write_batch(_batch(pending))
                count += len(pending)
        digest = digest_file(temporary)
    return Ref(uri=uri, sha256=digest, rows=count, table=TABLE)


def _batch(rows: Sequence[TokenRow]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.record_batch([pa.array(list(c), f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


@dataclass(frozen=True, slots=True)
class _Batch:
    """One batch, its columns where they lie in the file.

    ``starts`` of texts and of ids are memoryviews: they give single numbers several times faster than arrays do.
    """

    docs: NDArray[np.int32]
    chunk_ids: memoryview
    chunk_id_starts: memoryview
    ids: NDArray[np.int32]
    id_starts: memoryview


class ChunkTokens:
    """Random access to the tokens of a corpus's chunks, by row.

    Raises ``IntegrityError`` when the file is missing, unreadable or of other columns.
    """

    def __init__(self, home: Path, ref: Ref) -> None:
        try:
            self._map = pa.memory_map(str(home / ref.uri))
            self._file = pa.ipc.open_file(self._map)
        except (OSError, pa.ArrowInvalid) as error:
            raise IntegrityError(
                f"{ref.uri} can't be read ({error}).", hint="policylong audit names damaged files."
            ) from error
        if not self._file.schema.equals(SCHEMA):
            raise IntegrityError(f"{ref.uri} has columns {self._file.schema.names}, expected {SCHEMA.names}.")
        self._batches: dict[int, _Batch] = {}
        self.rows = ref.rows

    def doc(self, row: int) -> int:
        """Row of a chunk's document."""
        batch, place = self._find(row)
        return int(batch.docs[place])

    def size(self, row: int) -> int:
        """Tokens of a chunk."""
        batch, place = self._find(row)
        return int(batch.id_starts[place + 1] - batch.id_starts[place])

    def measured(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Rows of the documents, and tokens, of many chunks; ascending rows are fastest."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.rows:
            raise IndexError(f"rows {rows.min()} to {rows.max()} of the tokens of {self.rows} chunks")
        docs, sizes = np.empty(len(rows), np.int32), np.empty(len(rows), np.int32)
        numbers, places = np.divmod(rows, ROWS_PER_BATCH)
        borders = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
        for start, stop in pairwise([*borders, len(rows)]):
            batch, here = self._batch(int(numbers[start])), places[start:stop]
            starts = np.asarray(batch.id_starts)
            docs[start:stop] = batch.docs[here]
            sizes[start:stop] = starts[here + 1] - starts[here]
        return docs, sizes

    def spelled(self, row: int) -> tuple[str, NDArray[np.int32]]:
        """Digest of a chunk, and its token ids, a view of the file."""
        batch, place = self._find(row)
        names, ids = batch.chunk_id_starts, batch.id_starts
        name = str(batch.chunk_ids[names[place] : names[place + 1]], "utf-8")
        return name, batch.ids[ids[place] : ids[place + 1]]

    def _find(self, row: int) -> tuple[_Batch, int]:
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} of the tokens of {self.rows} chunks")
        number, place = divmod(row, ROWS_PER_BATCH)
        return self._batch(number), place

    def _batch(self, number: int) -> _Batch:
        batch = self._batches.get(number)
        if batch is None:
            read = self._file.get_batch(number)
            lists = read.column("input_ids")
            _, starts, names = read.column("chunk_id").buffers()
            batch = self._batches[number] = _Batch(
                docs=read.column("doc").to_numpy(),
                chunk_ids=memoryview(names),
                chunk_id_starts=memoryview(starts).cast("i"),
                ids=lists.values.to_numpy(),
                id_starts=memoryview(lists.offsets.to_numpy()),
            )
        return batch

    def close(self) -> None:
        """Lets go of the file; views of it stay valid."""
        self._batches.clear()
        self._map.close()


def are_chunk_tokens(path: Path) -> bool:
    """Whether a file can be read as the tokens of chunks."""
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
            return bool(file.schema.equals(SCHEMA))
    except (OSError, pa.ArrowInvalid):
        return False
