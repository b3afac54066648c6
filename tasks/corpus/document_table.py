"""The documents table as a stream: written row by row, read back a few documents at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from storage.digests import canonical_json
from storage.home import Home
from storage.refs import Ref
from storage.tables import open_table
from tasks.corpus.documents import RawDocument

DOCUMENTS_PER_BATCH = 16


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A row of the documents table with its number; ``metadata`` is JSON."""

    number: int
    doc_id: str
    text: str
    source: str
    title: str
    group: str
    part: str
    metadata: str


def document_row(document: RawDocument, text: str, doc_id: str, part: str) -> dict[str, Any]:
    """A document as a row of the table."""
    return {
        "doc_id": doc_id,
        "text": text,
        "source": document.source,
        "title": document.title,
        "group": document.group or doc_id,
        "part": part,
        "metadata": metadata_json(document.metadata),
    }


def metadata_json(metadata: Mapping[str, str]) -> str:
    """Metadata in canonical JSON."""
    return canonical_json(dict(metadata)).decode("utf-8")


def with_metadata(metadata: str, **more: str) -> str:
    """Metadata JSON with further fields."""
    return metadata_json({**json.loads(metadata), **more})


def stream_documents(home: Home, ref: Ref) -> Iterator[StoredDocument]:
    """Every document of a table in order; memory holds a few."""
    number = 0
    with open_table(home.path, ref) as file:
        for batch in file.iter_batches(batch_size=DOCUMENTS_PER_BATCH):
            for row in batch.to_pylist():
                yield StoredDocument(number=number, **row)
                number += 1


def origin(source: str) -> tuple[str, int]:
    """(file, row) of a document's source: ``books.parquet#17`` is row 17; a source without a number is row 0."""
    file, found, number = source.rpartition("#")
    return (file, int(number)) if found and number.isdecimal() else (source, 0)
