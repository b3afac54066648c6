"""Where a sample's tokens come from: chunks and roots by row, with document, digests and ids, without their texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from storage.chunk_tokens import ChunkTokens
from storage.corpora import Corpus
from storage.home import Home
from storage.refs import Ref
from storage.tables import RowReader, check_unchanged
from tasks.screening.passages import Passages

Ids = NDArray[np.int32]
_KEPT = 2**20


class Chunks(Protocol):
    """Chunks by row."""

    def doc(self, row: int) -> int:
        """Row of the document."""

    def size(self, row: int) -> int:
        """Length in tokens of the policy's tokenizer."""

    def spelled(self, row: int) -> tuple[str, Ids]:
        """Digest of the chunk, and its token ids when tokenised alone."""

    def expect(self, rows: Iterable[int]) -> None:
        """Says which chunks' ids will be asked for next."""

    def close(self) -> None:
        """Closes the files."""


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
        self._roots = RowReader(home.path, roots, ["root_id", "doc", "input_ids"])
        self._doc_ids = RowReader(home.path, corpus.documents, ["doc_id"])
        self.root: Callable[[int], RootTokens] = lru_cache(maxsize=8192)(self._root)
        self.doc_id: Callable[[int], str] = lru_cache(maxsize=_KEPT)(lambda doc: str(self._doc_ids[doc]["doc_id"]))
        self.chunk_doc: Callable[[int], int] = lru_cache(maxsize=_KEPT)(chunks.doc)
        self.chunk_size: Callable[[int], int] = lru_cache(maxsize=_KEPT)(chunks.size)

    def _root(self, row: int) -> RootTokens:
        found = self._roots[row]
        return RootTokens(found["root_id"], found["doc"], np.array(found["input_ids"], dtype=np.int32))

    def close(self) -> None:
        """Closes the files."""
        for reader in (self._roots, self._doc_ids, self.chunks):
            reader.close()


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

    def spelled(self, row: int) -> tuple[str, Ids]:
        """Digest of the chunk, and its token ids when tokenised alone."""
        return self._passages.chunk(row).chunk_id, np.array(self._passages.chunk_ids(row), dtype=np.int32)

    def expect(self, rows: Iterable[int]) -> None:
        """Tokenises these chunks."""
        self._passages.tokenise(rows)

    def close(self) -> None:
        """Closes the files."""
        self._passages.close()


def open_chunks(home: Home, corpus: Corpus, roots: Ref, tokenizer: PreTrainedTokenizerBase, digest: str) -> Chunks:
    """The chunks of a corpus as the tokenizer of this digest has them: as the corpus stores them where it does.

    Raises ``IntegrityError`` when the stored tokens are not those that the corpus was published with.
    """
    counted = corpus.manifest.get("chunking", {}).get("tokenizer") == digest
    if counted and corpus.tokens is not None:
        # Not compressed: nothing but the digest would notice another token.
        check_unchanged(home.path, corpus.tokens)
        return StoredChunks(home.path, corpus.tokens)
    return TokenisedChunks(home, corpus, roots, tokenizer, counted=counted)
