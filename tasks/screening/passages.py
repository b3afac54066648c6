"""Chunks and roots by row number, with their texts and tokens, read as they are needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from storage.home import Home
from storage.refs import Ref
from storage.tables import RowReader
from tasks.corpus.overlap import RunIndex, Windows
from tasks.corpus.tokenizing import batch_encoder

_CHUNKS_KEPT = 16_384
_WINDOWS_KEPT = 4096
_SIZES_KEPT = 2**20


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of the index."""

    row: int
    chunk_id: str
    doc: int
    tokens: int
    """As the ingest counted them, with the corpus's tokenizer."""
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
        self._sizes = RowReader(home.path, chunks, ["doc", "tokens"])
        self._texts = RowReader(home.path, documents, ["text"], kept_bytes=2**27)
        self._doc_ids = RowReader(home.path, documents, ["doc_id"])
        self._encode = None if tokenizer is None else batch_encoder(tokenizer)
        self._ids: dict[int, tuple[int, ...]] = {}
        self.chunk = lru_cache(maxsize=_CHUNKS_KEPT)(self._chunk)
        self.chunk_size = lru_cache(maxsize=_SIZES_KEPT)(self._chunk_size)
        self.root = lru_cache(maxsize=256)(self._root)
        self.runs = lru_cache(maxsize=256)(self._run_index)
        self.windows = lru_cache(maxsize=_WINDOWS_KEPT)(self._chunk_windows)
        self.doc_id = lru_cache(maxsize=_CHUNKS_KEPT)(self._doc_id)
        self._text = lru_cache(maxsize=8)(lambda doc: str(self._texts[doc]["text"]))

    @property
    def chunk_count(self) -> int:
        """Chunks in the corpus."""
        return len(self._chunks)

    def _chunk(self, row: int) -> Chunk:
        found = self._chunks[row]
        return Chunk(row, found["chunk_id"], found["doc"], found["tokens"], found["text"])

    def _chunk_size(self, row: int) -> tuple[int, int]:
        """Document and tokens of a chunk, without its text."""
        found = self._sizes[row]
        return found["doc"], found["tokens"]

    def chunk_ids(self, row: int) -> tuple[int, ...]:
        """Tokens of a chunk when tokenised alone."""
        if row not in self._ids:
            self.tokenise((row,))
        return self._ids[row]

    def tokenise(self, rows: Iterable[int]) -> None:
        """Tokenises the chunks that ``chunk_ids`` will be asked for, at once, which is faster than one by one."""
        assert self._encode is not None, "these passages were opened without a tokenizer"
        wanted = set(rows)
        missing = sorted(wanted - self._ids.keys())
        if len(self._ids) + len(missing) > _CHUNKS_KEPT:
            self._ids.clear()
            missing = sorted(wanted)
        found = self._encode([self.chunk(row).text for row in missing])
        self._ids.update(zip(missing, map(tuple, found), strict=True))

    def _root(self, row: int) -> Root:
        found = self._roots[row]
        text = self._text(found["doc"])[found["char_start"] : found["char_end"]]
        return Root(row, found["root_id"], found["doc"], text, tuple(found["input_ids"]))

    def _run_index(self, row: int, length: int) -> RunIndex:
        return RunIndex(self.root(row).text, length=length)

    def _chunk_windows(self, row: int, length: int) -> Windows:
        return Windows.of(self.chunk(row).text, length)

    def _doc_id(self, doc: int) -> str:
        """Digest of a document by its row."""
        return str(self._doc_ids[doc]["doc_id"])

    def close(self) -> None:
        """Closes the files."""
        for reader in (self._roots, self._chunks, self._sizes, self._texts, self._doc_ids):
            reader.close()
