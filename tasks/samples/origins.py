"""Where a sample's tokens come from: chunks and roots by row, with document, digests and ids, without their texts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Generic, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from storage.chunk_tokens import ChunkTokens
from storage.corpora import Corpus, check_corpus_table
from storage.home import Home
from storage.refs import Ref
from storage.tables import RowReader, open_table
from tasks.screening.passages import Passages

Ids = NDArray[np.int32]
Value = TypeVar("Value")
_KEPT = 2**20


class Chunks(Protocol):
    """Chunks by row."""

    def doc(self, row: int) -> int:
        """Row of the document."""

    def size(self, row: int) -> int:
        """Length in tokens of the policy's tokenizer."""

    def measured(self, rows: NDArray[np.int64]) -> tuple[Ids, Ids] | None:
        """``doc`` and ``size`` of many chunks; None where that costs as much as one by one."""

    def spelled(self, row: int) -> tuple[str, Ids]:
        """Digest of the chunk, and its token ids when tokenised alone."""

    def expect(self, rows: Iterable[int]) -> None:
        """Says which chunks' ids will be asked for next."""

    def close(self) -> None:
        """Closes the files."""


class Remembered(dict[int, Value], Generic[Value]):
    """What a function says of a row, asked once; all is forgotten when it has grown too large."""

    def __init__(self, ask: Callable[[int], Value]) -> None:
        super().__init__()
        self._ask = ask

    def __missing__(self, row: int) -> Value:
        self._make_room()
        found = self[row] = self._ask(row)
        return found

    def learn(self, rows: Iterable[int], found: Iterable[Value]) -> None:
        """What would have been answered for these rows."""
        self._make_room()
        self.update(zip(rows, found, strict=True))

    def _make_room(self) -> None:
        if len(self) >= _KEPT:
            self.clear()


@dataclass(frozen=True, slots=True)
class RootTokens:
    """A root without its text."""

    root_id: str
    doc: int
    ids: Ids


class Origins:
    """The chunks, roots and documents of one corpus; memory is bounded by the caches."""

    def __init__(self, home: Home, corpus: Corpus, roots: Ref, chunks: Chunks) -> None:
        self.chunks = chunks
        self._roots = _Roots(home, roots)
        self._doc_ids = RowReader(home.path, corpus.documents, ["doc_id"])
        self.root: Callable[[int], RootTokens] = lru_cache(maxsize=8192)(self._roots.root)
        self.root_docs = Remembered(lambda row: self.root(row).doc)
        self.root_sizes = Remembered(lambda row: len(self.root(row).ids))
        self.doc_ids = Remembered(lambda doc: str(self._doc_ids[doc]["doc_id"]))
        self.chunk_docs = Remembered(chunks.doc)
        self.chunk_sizes = Remembered(chunks.size)

    def look_up(self, chunks: Iterable[int]) -> None:
        """Looks up documents and sizes of different chunks at once."""
        rows = sorted(chunks)
        found = self.chunks.measured(np.array(rows, dtype=np.int64))
        if found is not None:
            for remembered, values in zip((self.chunk_docs, self.chunk_sizes), found, strict=True):
                remembered.learn(rows, values.tolist())

    def close(self) -> None:
        """Closes the files."""
        for reader in (self._roots, self._doc_ids, self.chunks):
            reader.close()


class _Roots:
    """A table of roots, a row group at a time; roots are asked for nearly in order."""

    def __init__(self, home: Home, ref: Ref) -> None:
        self._file = open_table(home.path, ref)
        groups = [self._file.metadata.row_group(number).num_rows for number in range(self._file.num_row_groups)]
        self._starts = list(accumulate(groups, initial=0))
        self._group = lru_cache(maxsize=2)(self._read)

    def _read(self, number: int) -> tuple[pa.StringArray, Ids, Ids, Ids]:
        group = self._file.read_row_group(number, columns=["root_id", "doc", "input_ids"]).combine_chunks()
        names, docs, lists = (group.column(name).chunk(0) for name in ("root_id", "doc", "input_ids"))
        return names, docs.to_numpy(), lists.offsets.to_numpy(), lists.values.to_numpy()

    def root(self, row: int) -> RootTokens:
        """The root of a row; its ids are a copy, so that they don't hold their group."""
        if not 0 <= row < self._starts[-1]:
            raise IndexError(f"row {row} of {self._starts[-1]} roots")
        group = bisect_right(self._starts, row) - 1
        place = row - self._starts[group]
        names, docs, offsets, ids = self._group(group)
        return RootTokens(names[place].as_py(), int(docs[place]), ids[offsets[place] : offsets[place + 1]].copy())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class StoredChunks(ChunkTokens):
    """Chunks whose tokens lie in the corpus."""

    def expect(self, rows: Iterable[int]) -> None:
        """Nothing is made ready: the file is mapped."""


class TokenisedChunks:
    """Chunks of a corpus that has no tokens of this tokenizer: from their texts, a sample's chunks at once."""

    def __init__(
        self, home: Home, corpus: Corpus, roots: Ref, tokenizer: PreTrainedTokenizerBase, *, counted: bool
    ) -> None:
        """``counted`` says that the corpus counted its chunks' tokens with this tokenizer."""
        self._passages = Passages(
            home, roots=roots, chunks=corpus.chunks, documents=corpus.documents, tokenizer=tokenizer
        )
        self._counted = counted

    def doc(self, row: int) -> int:
        """Row of the document."""
        return self._passages.chunk_size(row)[0]

    def size(self, row: int) -> int:
        """Length in tokens of the policy's tokenizer."""
        return self._passages.chunk_size(row)[1] if self._counted else len(self._passages.chunk_ids(row))

    def measured(self, rows: NDArray[np.int64]) -> None:
        """Nothing: one by one, since only those that are used are tokenised."""

    def spelled(self, row: int) -> tuple[str, Ids]:
        """Digest of the chunk, and its token ids when tokenised alone."""
        return self._passages.chunk(row).chunk_id, np.array(self._passages.chunk_ids(row), dtype=np.int32)

    def expect(self, rows: Iterable[int]) -> None:
        """Tokenises these chunks."""
        self._passages.tokenise(rows)

    def close(self) -> None:
        """Closes the files."""
        self._passages.close()


def open_chunks(
    home: Home, corpus: Corpus, roots: Ref, tokenizer: Callable[[], PreTrainedTokenizerBase], digest: str
) -> Chunks:
    """The chunks of a corpus as the tokenizer of this digest has them: as the corpus stores them where it does, and
    else with the tokenizer itself, which is loaded only then.

    Raises ``IntegrityError`` when the stored tokens are not those that the corpus was published with.
    """
    counted = corpus.manifest.get("chunking", {}).get("tokenizer") == digest
    if counted and corpus.tokens is not None:
        # Not compressed: nothing but the digest would notice another token.
        check_corpus_table(home, corpus.tokens)
        return StoredChunks(home.path, corpus.tokens)
    return TokenisedChunks(home, corpus, roots, tokenizer(), counted=counted)
