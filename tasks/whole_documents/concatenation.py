"""Standard data: whole documents one after the other in random order (docs/method.md 3).

A document that is longer than what is left in a sample goes on in the next one; only what can't fill a last sample is
left over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from storage.checkpoints import work_uri
from storage.home import Home
from storage.refs import Ref
from storage.schemas import SAMPLES, UNPLACED
from storage.tables import write_table
from tasks.checkpointed import step
from tasks.progress import track
from tasks.samples.spans import Form, Span
from tasks.whole_documents.document_order import DocumentInputs, RoundDocuments, TokenDocument
from tasks.whole_documents.supply import Most, Stock

Row = dict[str, Any]


class StandardOptions(BaseModel):
    """Options of ``standard``: documents concatenated at random (the baseline of NExtLong's table)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, description="Salt of the documents' order. [ours 3]")


class ConcatenationInputs(DocumentInputs):
    """The documents of a round."""


def most_tokens(stock: Stock, form: Form, samples: int, options: StandardOptions) -> Most:
    """Most tokens of so many samples: every document stands in them once."""
    return Most(stock.tokens(form))


@dataclass(frozen=True, slots=True)
class Piece:
    """What a document has still to give: its tokens from ``start`` on."""

    document: TokenDocument
    start: int

    @property
    def tokens(self) -> int:
        """Tokens that are left."""
        return len(self.document) - self.start

    def span(self, limit: int) -> Span:
        """The next tokens, at most ``limit``."""
        ids = self.document.ids[self.start : self.start + limit].tolist()
        return Span("document", self.document.doc_id, ids, source_start=self.start)

    def after(self, tokens: int) -> list[Piece]:
        """The rest behind so many tokens, or nothing."""
        return [Piece(self.document, self.start + tokens)] if tokens < self.tokens else []

    def left_out(self, reason: str) -> Row:
        """The rest as a row of ``unplaced``."""
        return unplaced_document(self.document, self.tokens, reason)


def unplaced_document(document: TokenDocument, tokens: int, reason: str, kind: str = "document") -> Row:
    """A row of ``unplaced`` about a document, of which ``tokens`` found no place."""
    return {"root": None, "kind": kind, "chunk": None, "doc": document.row, "tokens": tokens, "reason": reason}


def concatenated(documents: Iterable[TokenDocument], form: Form, samples: int | None, left: list[Row]) -> Iterator[Row]:
    """Rows of ``samples`` made of documents in this order, at most ``samples``; ``left`` gets what stays over."""
    pieces: list[Piece] = []
    used = made = 0
    for document in documents:
        pieces.append(Piece(document, 0))
        used += form.cost(len(document))
        while pieces and used >= form.room:
            laid = form.lay_out([piece.span(form.target) for piece in pieces])
            assert laid is not None, "the pieces fill a sample"
            row, placed = laid
            yield row
            made += 1
            pieces = pieces[-1].after(placed[-1])
            used = sum(form.cost(piece.tokens) for piece in pieces)
            if made == samples:
                left.extend(piece.left_out("budget") for piece in pieces)
                return
    left.extend(piece.left_out("sample-not-filled") for piece in pieces)


@step("concatenation", code_version=1)
def concatenate(home: Home, inputs: ConcatenationInputs, config: StandardOptions) -> dict[str, Ref]:
    """Samples of whole documents: tables ``samples`` and ``unplaced``.

    Raises ``InputError`` when the round's documents can't give the samples wanted.
    """
    key = concatenate.key(inputs, config)
    documents = RoundDocuments.open(home, inputs, config.seed)
    documents.check_supply(most_tokens, config)
    left: list[Row] = []
    stream = track(documents.tokens(), len(documents.listed), "concatenation", "documents")
    rows = concatenated(stream, documents.form, inputs.samples, left)
    written = write_table(home.path, work_uri(key, "samples"), SAMPLES, rows)
    return {"samples": written, "unplaced": write_table(home.path, work_uri(key, "unplaced"), UNPLACED, left)}
