"""Chunks and roots by row number, with their texts and tokens, read as they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from storage.home import Home
from storage.refs import Ref
from storage.tables import RowReader
from tasks.corpus.overlap import RunIndex


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of the index."""

    row: int
    chunk_id: str
    doc: int
    text: str


@dataclass(frozen=True, slots=True)
class Root:
    """A window of a document in which uncertainty was looked for."""

    row: int
    root_id: str
    doc: int
    text: str
    ids: tuple[int, ...]


class Passages:
    """Random access to chunks and roots of one corpus; memory is bounded by the caches.

    A tokenizer is needed only for ``chunk_ids``.
    """

    def __init__(
        self, home: Home, *, roots: Ref, chunks: Ref, documents: Ref, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> None:
        self._roots = RowReader(home.path, roots)
        self._chunks = RowReader(home.path, chunks)
        self._documents = RowReader(home.path, documents, ["doc_id", "text"], groups_kept=4)
        self._tokenizer = tokenizer
        self.chunk = lru_cache(maxsize=16384)(self._chunk)
        self.chunk_ids = lru_cache(maxsize=16384)(self._chunk_ids)
        self.root = lru_cache(maxsize=256)(self._root)
        self.runs = lru_cache(maxsize=256)(self._run_index)

    @property
    def chunk_count(self) -> int:
        """Chunks in the corpus."""
        return len(self._chunks)

    def _chunk(self, row: int) -> Chunk:
        found = self._chunks[row]
        return Chunk(row, found["chunk_id"], found["doc"], found["text"])

    def _chunk_ids(self, row: int) -> tuple[int, ...]:
        """Tokens of a chunk when tokenised alone."""
        assert self._tokenizer is not None, "these passages were opened without a tokenizer"
        return tuple(self._tokenizer(self.chunk(row).text, add_special_tokens=False)["input_ids"])

    def _root(self, row: int) -> Root:
        found = self._roots[row]
        text = self._documents[found["doc"]]["text"][found["char_start"] : found["char_end"]]
        return Root(row, found["root_id"], found["doc"], text, tuple(found["input_ids"]))

    def _run_index(self, row: int, length: int) -> RunIndex:
        return RunIndex(self.root(row).text, length=length)

    def doc_id(self, doc: int) -> str:
        """Digest of a document by its row."""
        return str(self._documents[doc]["doc_id"])

    def close(self) -> None:
        """Closes the files."""
        for reader in (self._roots, self._chunks, self._documents):
            reader.close()
