"""KNN data: a document followed by its neighbours, nearest first (docs/method.md 3, recipe ``knn``).

A sample takes a document of the round (its head) and then the head's neighbours; when these do not fill it, the next
head follows with its own. No document stands twice in a sample. A head that is longer than what is left goes on in the
next sample; a neighbour is cut there. What stands whole in a sample heads no other one [ours], so a budget is not
spent on few documents; neighbours may stand in several samples, and may be documents of other rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from pydantic import Field

from storage.checkpoints import work_uri
from storage.home import Home
from storage.refs import Ref
from storage.schemas import SAMPLES, UNPLACED
from storage.tables import RowReader, write_table
from tasks.checkpointed import step
from tasks.progress import track
from tasks.samples.spans import Form
from tasks.whole_documents.concatenation import Piece, Row, unplaced_document
from tasks.whole_documents.document_order import DocumentInputs, RoundDocuments, TokenDocument
from tasks.whole_documents.neighbours import KnnOptions

Head = tuple[TokenDocument, Sequence[int]]
"""A document of the round and the rows of its neighbours, nearest first."""


class NeighbourConcatenationInputs(DocumentInputs):
    """The documents of a round and their neighbours, shard by shard."""

    neighbours: tuple[Ref, ...] = Field(description="Tables ``neighbours`` of consecutive shards.")


@dataclass(slots=True)
class _Sample:
    """A sample being filled."""

    form: Form
    pieces: list[Piece] = field(default_factory=list)
    used: int = 0

    def has(self, row: int) -> bool:
        return any(piece.document.row == row for piece in self.pieces)

    def add(self, piece: Piece) -> tuple[Row, int] | None:
        """Adds a piece; the row and the piece's tokens in it when that fills the sample."""
        self.pieces.append(piece)
        self.used += self.form.cost(piece.tokens)
        if self.used < self.form.room:
            return None
        laid = self.form.lay_out([part.span(self.form.target) for part in self.pieces])
        assert laid is not None, "the pieces fill a sample"
        return laid[0], laid[1][-1]


def followed_by_neighbours(
    heads: Iterable[Head],
    look_up: Callable[[int], TokenDocument],
    form: Form,
    samples: int | None,
    left: list[Row],
) -> Iterator[Row]:
    """Rows of ``samples``, at most ``samples``; ``left`` gets what stays over and what is cut off neighbours."""
    sample = _Sample(form)
    whole: set[int] = set()
    made = 0
    for document, neighbours in heads:
        if document.row in whole:
            continue
        rest = [Piece(document, 0)]
        while rest:
            (piece,) = rest
            filled = sample.add(piece)
            if filled is None:
                rest = []
                break
            yield filled[0]
            made, sample = made + 1, _Sample(form)
            rest = piece.after(filled[1])
            if made == samples:
                left.extend(part.left_out("budget") for part in rest)
                return
        whole.add(document.row)
        for row in neighbours if sample.pieces else ():
            if sample.has(row):
                continue
            neighbour = look_up(row)
            if not len(neighbour):
                continue
            filled = sample.add(Piece(neighbour, 0))
            if filled is None:
                whole.add(row)
                continue
            yield filled[0]
            made, sample = made + 1, _Sample(form)
            if filled[1] == len(neighbour):
                whole.add(row)
            else:
                left.append(unplaced_document(neighbour, len(neighbour) - filled[1], "sample-full", "neighbour"))
            break
        if made == samples:
            return
    left.extend(piece.left_out("sample-not-filled") for piece in sample.pieces)


def _heads(home: Home, documents: RoundDocuments, neighbours: Sequence[Ref]) -> Iterator[Head]:
    """Documents with their neighbours; both are in the round's order, so the tables are read once, in a stream."""
    groups = groupby(_rows(home, neighbours), key=lambda row: int(row["doc"]))
    waiting = next(groups, None)
    for document in documents.tokens():
        found: list[int] = []
        if waiting is not None and waiting[0] == document.row:
            found = [int(row["neighbour"]) for row in waiting[1]]
            waiting = next(groups, None)
        yield document, found


def _rows(home: Home, refs: Sequence[Ref]) -> Iterator[dict[str, Any]]:
    for ref in refs:
        reader = RowReader(home.path, ref, ["doc", "neighbour"])
        try:
            yield from reader
        finally:
            reader.close()


@step("neighbour-concatenation", code_version=1)
def concatenate_neighbours(home: Home, inputs: NeighbourConcatenationInputs, config: KnnOptions) -> dict[str, Ref]:
    """Samples of documents and their neighbours: tables ``samples`` and ``unplaced``.

    Raises ``InputError`` when the round has no document.
    """
    key = concatenate_neighbours.key(inputs, config)
    documents = RoundDocuments.open(home, inputs, config.seed)
    left: list[Row] = []
    heads = track(_heads(home, documents, inputs.neighbours), len(documents.listed), "concatenation", "documents")
    try:
        rows = followed_by_neighbours(heads, documents.lookup(), documents.form, inputs.samples, left)
        written = write_table(home.path, work_uri(key, "samples"), SAMPLES, rows)
    finally:
        documents.close()
    return {"samples": written, "unplaced": write_table(home.path, work_uri(key, "unplaced"), UNPLACED, left)}
