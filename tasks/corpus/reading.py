"""Rows into documents: read, normalised, without duplicates, each in its part; and the rows that were refused.

One stream from the files to the documents table. Refusals are set aside in a file meanwhile, so memory holds neither.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, Field

from storage.checkpoints import work_uri
from storage.digests import digest_text
from storage.errors import InputError, QuarantineError
from storage.files import disk_errors
from storage.home import Home
from storage.refs import Ref
from storage.schemas import DOCUMENTS, QUARANTINE
from storage.tables import write_table
from tasks.checkpointed import step
from tasks.corpus.contamination import Benchmarks, benchmark_files
from tasks.corpus.counts import write_counts
from tasks.corpus.deduplication import Deduplicator
from tasks.corpus.document_table import document_row, origin
from tasks.corpus.documents import RawDocument
from tasks.corpus.ingestion import ReadConfig
from tasks.corpus.normalisation import normalised
from tasks.corpus.python_corpus import PythonCorpusConfig, iterate_python_documents
from tasks.corpus.quarantine import Refusal, check_share, count_reasons, refused_row
from tasks.corpus.readers import Row, read_rows
from tasks.corpus.sources import find_sources
from tasks.corpus.splitting import part_of
from tasks.progress import progress


class ReadInputs(BaseModel):
    """The input by content: digests of the files, or versions of the packages; and where the files lie."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: tuple[tuple[str, str], ...] = Field((), description="(name, SHA-256) of each input file, in order.")
    packages: dict[str, str] = Field({}, description="Package → version, for the Python corpus.")
    benchmarks: tuple[tuple[str, str], ...] = Field((), description="(name, SHA-256) of each benchmark file.")
    paths: tuple[str, ...] = Field((), exclude=True)
    benchmark_paths: tuple[str, ...] = Field((), exclude=True)


@dataclass
class _Refused:
    """Rows of the quarantine table on their way there, in a file without a name."""

    file: IO[str]
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row | RawDocument, refusal: Refusal) -> None:
        source, number = (row.source, row.number) if isinstance(row, Row) else origin(row.source)
        self.reasons[refusal.reason] += 1
        self.file.write(json.dumps(refused_row(source, number, refusal)) + "\n")

    def rows(self) -> Iterator[dict[str, Any]]:
        self.file.seek(0)
        for line in self.file:
            yield json.loads(line)


@step("ingest-read", code_version=1)
def read_documents(home: Home, inputs: ReadInputs, config: ReadConfig) -> dict[str, Ref]:
    """Documents and quarantine; together they are as many as the rows read.

    Raises ``QuarantineError`` when too much is refused (the quarantine table is there to look at) and ``InputError``
    when nothing is left.
    """
    key = read_documents.key(inputs, config)
    work = home.folder("work")
    with disk_errors(work), tempfile.TemporaryFile("w+", encoding="utf-8", dir=work) as file:
        refused = _Refused(file)
        rows = Counter[str]()
        documents = _documents(inputs, config, refused, rows)
        table = write_table(home.path, work_uri(key, "documents"), DOCUMENTS, documents)
        quarantine = write_table(home.path, work_uri(key, "quarantine"), QUARANTINE, refused.rows())
    read, reasons = rows["read"], count_reasons(refused.reasons.elements())
    if not read:
        raise InputError(
            "the corpus is empty: there is no row in the input.", hint="Give files with documents in them."
        )
    check_share(reasons, read, config.quarantine, quarantine.uri)
    if not table.rows:
        raise QuarantineError(f"every one of {read} rows was refused.", hint=f"Look at {quarantine.uri}.")
    counts = {
        "rows": read,
        "refused": reasons,
        "benchmark_texts": rows["texts"],
        "benchmark_too_short": rows["too_short"],
    }
    return {"documents": table, "quarantine": quarantine, "counts": write_counts(home, key, counts)}


def _documents(
    inputs: ReadInputs, config: ReadConfig, refused: _Refused, rows: Counter[str]
) -> Iterator[dict[str, Any]]:
    known = Deduplicator(config.deduplication)
    benchmarks = _benchmarks(inputs, config, rows)
    with progress("reading documents", total=None, unit="rows") as advance:
        for row in _rows(inputs, config):
            rows["read"] += 1
            kept = _kept(row, config, known, benchmarks)
            if isinstance(kept, Refusal):
                refused.add(row, kept)
            else:
                yield kept
            advance(1)


def _rows(inputs: ReadInputs, config: ReadConfig) -> Iterator[Row]:
    if config.python is not None:
        yield from _python_rows(config.python)
        return
    for file in find_sources(inputs.paths).files:
        yield from read_rows(file, config.columns)


def _python_rows(config: PythonCorpusConfig) -> Iterator[Row]:
    for document in iterate_python_documents(config):
        yield Row(document.source, 0, document)


def _benchmarks(inputs: ReadInputs, config: ReadConfig, rows: Counter[str]) -> Benchmarks | None:
    if not inputs.benchmark_paths:
        return None
    benchmarks = Benchmarks(benchmark_files(inputs.benchmark_paths), config.contamination_run)
    rows["texts"], rows["too_short"] = benchmarks.texts, benchmarks.too_short
    return benchmarks


def _kept(row: Row, config: ReadConfig, known: Deduplicator, benchmarks: Benchmarks | None) -> dict[str, Any] | Refusal:
    """The row as a document, or why not; the cheap questions first."""
    if isinstance(row.content, Refusal):
        return row.content
    text = normalised(row.content.text, config.normalisation)
    if isinstance(text, Refusal):
        return text
    doc_id = digest_text(text)
    refusal = (benchmarks.refuse(text) if benchmarks else None) or known.refuse(doc_id, text, row.content.source)
    if refusal is not None:
        return refusal
    return document_row(row.content, text, doc_id, part_of(row.content.group or doc_id, doc_id, config.split))
