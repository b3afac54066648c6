"""The step that keeps held-out documents apart from everything else; see ``tasks/corpus/separation.py``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from storage.checkpoints import work_uri
from storage.digests import digest_text
from storage.home import Home
from storage.refs import Ref
from storage.schemas import DOCUMENTS, QUARANTINE
from storage.tables import read_table, write_table
from tasks.checkpointed import step
from tasks.corpus.counts import write_counts
from tasks.corpus.document_table import StoredDocument, origin, stream_documents, with_metadata
from tasks.corpus.quarantine import Refusal, refused_row
from tasks.corpus.separation import SeparationConfig, separated
from tasks.progress import progress


class SeparateInputs(BaseModel):
    """The documents as read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: Ref
    quarantine: Ref


@step("ingest-separate", code_version=1)
def separate_documents(home: Home, inputs: SeparateInputs, config: SeparationConfig) -> dict[str, Ref]:
    """The documents, held-out ones without the runs they share with others; what became too short is refused."""
    key = separate_documents.key(inputs, config)
    heldout = {d.number: d.text for d in stream_documents(home, inputs.documents) if d.part == "heldout"}
    texts = _separated(home, inputs.documents, heldout, config) if config.enabled else heldout
    changed = {number: text for number, text in texts.items() if text != heldout[number]}
    removed = sum(len(heldout[number]) - len(text) for number, text in changed.items())
    refused: list[dict[str, Any]] = []

    def kept() -> Iterator[dict[str, Any]]:
        seen = {digest_text(text) for number, text in heldout.items() if number not in changed}
        for document in stream_documents(home, inputs.documents):
            text = changed.get(document.number)
            if text is None:
                yield _row(document)
                continue
            doc_id = digest_text(text)
            refusal = _refusal(document, text, config, doc_id in seen)
            if refusal is not None:
                refused.append(refused_row(*origin(document.source), refusal))
                continue
            seen.add(doc_id)
            metadata = with_metadata(document.metadata, removed_characters=str(len(document.text) - len(text)))
            yield _row(dataclasses.replace(document, text=text, doc_id=doc_id, metadata=metadata))

    documents = write_table(home.path, work_uri(key, "documents"), DOCUMENTS, kept())
    rows = pl.DataFrame(
        refused, schema={c.name: pl.Int64 if c.name == "row" else pl.String for c in QUARANTINE.columns}
    )
    frame = pl.concat([read_table(home.path, inputs.quarantine), rows])
    quarantine = write_table(home.path, work_uri(key, "quarantine"), QUARANTINE, frame)
    counts = {"heldout_changed": len(changed), "heldout_refused": len(refused), "heldout_removed_characters": removed}
    return {"documents": documents, "quarantine": quarantine, "counts": write_counts(home, key, counts)}


def _refusal(document: StoredDocument, text: str, config: SeparationConfig, known: bool) -> Refusal | None:
    """Why what is left of a held-out document is no document."""
    if len(text) < config.min_characters:
        detail = f"{len(text)} of {len(document.text)} characters left, expected at least {config.min_characters}"
        return Refusal("overlap-heldout", detail, document.text)
    if known:
        return Refusal("duplicate", "without shared runs it is the same as another held-out document", document.text)
    return None


def _separated(home: Home, documents: Ref, heldout: dict[int, str], config: SeparationConfig) -> dict[int, str]:
    with progress("comparing held-out documents with the others", total=None, unit="documents") as advance:

        def others() -> Iterator[str]:
            for document in stream_documents(home, documents):
                if document.part != "heldout":
                    yield document.text
                advance(1)

        return separated(heldout, others, config.run_characters)


def _row(document: StoredDocument) -> dict[str, Any]:
    return {name: getattr(document, name) for name in (column.name for column in DOCUMENTS.columns)}
