"""Benchmarks stay out of the corpus: a document that shares a run with a benchmark file is refused.

Every text in a benchmark file counts, whatever its column or key. A benchmark text shorter than the run can't be
found; how many these are is reported.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from storage.digests import digest_file
from storage.errors import InputError
from tasks.corpus.overlap import RUN_CHARACTERS, RunSet, folded_codes, text_hashes, window_hashes
from tasks.corpus.quarantine import Refusal

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt", ".md")


class ContaminationConfig(BaseModel):
    """Which benchmark files the corpus may share nothing with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: tuple[str, ...] = Field((), description="Benchmark files or folders (JSON, JSONL, CSV, Parquet, text).")
    run_characters: int = Field(
        RUN_CHARACTERS, ge=16, description="Length of a shared run, folded characters. docs/method.md 2.4."
    )


class Benchmarks:
    """The runs of all benchmark texts."""

    def __init__(self, files: Sequence[Path], length: int) -> None:
        self._length = length
        self.texts = self.too_short = 0
        self._runs = RunSet(self._hashes(files))

    def _hashes(self, files: Sequence[Path]) -> Iterator[Any]:
        for file in files:
            for text in benchmark_texts(file):
                hashes = text_hashes(text, self._length)
                self.texts += 1
                self.too_short += not len(hashes)
                yield hashes

    def refuse(self, text: str) -> Refusal | None:
        """Why the document is contaminated, with the beginning of the first shared run; ``None`` when it is not."""
        codes, places = folded_codes(text)
        found = self._runs.has(window_hashes(codes, self._length))
        if not found.any():
            return None
        start = int(places[int(found.argmax())])
        return Refusal(
            "contaminated", f"a run of {self._length} characters at character {start}", text[start : start + 200]
        )


def benchmark_files(paths: Sequence[str]) -> list[Path]:
    """The benchmark files behind the given paths and folders; raises ``InputError`` for one that is missing."""
    files: list[Path] = []
    for given in paths:
        path = Path(given).expanduser()
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside or not all(file.is_file() and file.suffix.lower() in SUFFIXES for file in inside):
            raise InputError(f"benchmark {given} is missing or of no known kind, expected {', '.join(SUFFIXES)}.")
        files += inside
    return files


def benchmark_digests(paths: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(name, SHA-256) of each benchmark file."""
    return tuple((file.name, digest_file(file)) for file in benchmark_files(paths))


def benchmark_texts(file: Path) -> Iterator[str]:
    """Every text of a benchmark file; raises ``InputError`` when it can't be read."""
    try:
        yield from _TEXTS[file.suffix.lower()](file)
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise InputError(f"benchmark {file.name} can't be read ({error}).", hint="Fetch it again.") from error


def _of_json(file: Path) -> Iterator[str]:
    yield from _strings(json.loads(file.read_bytes()))


def _of_jsonl(file: Path) -> Iterator[str]:
    with file.open("rb") as lines:
        for line in lines:
            if line.strip():
                yield from _strings(json.loads(line))


def _of_table(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8", newline="") as stream:
        for row in csv.reader(stream, delimiter="\t" if file.suffix.lower() == ".tsv" else ","):
            yield from row


def _of_parquet(file: Path) -> Iterator[str]:
    with pq.ParquetFile(file) as table:
        for batch in table.iter_batches(batch_size=1024):
            yield from _strings(batch.to_pylist())


def _of_text(file: Path) -> Iterator[str]:
    yield file.read_text(encoding="utf-8")


_TEXTS = {
    ".json": _of_json,
    ".jsonl": _of_jsonl,
    ".csv": _of_table,
    ".tsv": _of_table,
    ".parquet": _of_parquet,
    ".txt": _of_text,
    ".md": _of_text,
}


def _strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, in order, keys left out."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting += reversed(item.values())
        elif isinstance(item, list):
            waiting += reversed(item)
