"""Which document a chunk belongs to, and which chunks a document has: 12 bytes of memory per chunk, no texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from storage.home import Home
from storage.refs import Ref
from storage.tables import open_table


class ChunkOwners:
    """Rows of a corpus's documents and chunks, both ways."""

    def __init__(self, home: Home, chunks: Ref) -> None:
        with open_table(home.path, chunks) as file:
            column = file.read(columns=["doc"]).column("doc")
        self.doc_of: NDArray[np.int32] = column.to_numpy().astype(np.int32)
        """Row of each chunk's document ``[chunks]``."""
        self._order = np.argsort(self.doc_of, kind="stable")
        self._sorted = self.doc_of[self._order]

    def __len__(self) -> int:
        return len(self.doc_of)

    def chunks_of(self, doc: int) -> list[int]:
        """Rows of a document's chunks, ascending."""
        first, stop = np.searchsorted(self._sorted, [doc, doc + 1])
        return [int(chunk) for chunk in self._order[first:stop]]
