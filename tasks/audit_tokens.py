"""Audit of the samples' tokens: each span holds its origin's tokens, and only separators stand between spans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from storage.digests import digest_json
from storage.findings import Finding, failed, not_checkable, passed
from storage.tables import RowReader
from tasks.audit_subject import Subject
from tasks.progress import progress

Tokenise = Callable[[str], Sequence[int]]
"""A text's tokens when it stands alone, without special tokens."""

_SAMPLES_AT_ONCE = 8


def audit_tokens(subject: Subject, tokenise: Tokenise | None, bos: Sequence[int] = ()) -> Iterator[Finding]:
    """Compares every token of every sample with its origin; ``tokenise`` is ``None`` when the policy is not at hand."""
    origins = _Origins(subject, tokenise)
    separator = subject.setting("verification", "separator")
    between = list(tokenise(separator)) if tokenise and isinstance(separator, str) else None
    checks: dict[str, list[str]] = {
        "every sample's length and id follow from its tokens": [],
        "every sample is spans with separators between, in order": [],
        "every root span holds its root's tokens": [],
        "every context span holds its chunk's tokens": [],
    }
    length, layout, roots, contexts = checks.values()
    file = None
    total = sum(subject.manifest.files[name].rows or 0 for name in subject.manifest.names("samples"))
    with progress("comparing tokens", total=total, unit="samples") as advance:
        for path in subject.shards("samples"):
            for sample in _samples(path):
                before = _count(checks)
                length += _wrong_identity(sample)
                layout += _wrong_layout(sample, list(bos), between)
                for segment in sample["segments"]:
                    problems = roots if segment["kind"] == "root" else contexts
                    problems += _wrong_tokens(sample, segment, origins)
                file = file or (path.relative_to(subject.home.path).as_posix() if _count(checks) > before else None)
                advance(1)
    for check, problems in checks.items():
        if problems:
            yield failed(check, f"{len(problems)} wrong, the first: {problems[0]}", file)
        elif problems is contexts and not origins.has_chunks:
            yield not_checkable(check, "corpus or tokenizer is not at hand")
        else:
            yield passed(check)


class _Origins:
    """Tokens of roots and chunks by their digests."""

    def __init__(self, subject: Subject, tokenise: Tokenise | None) -> None:
        self.has_chunks = subject.corpus is not None and tokenise is not None
        self._rows: dict[str, int] = {}
        if subject.corpus is not None and tokenise is not None:
            used = subject.table("samples").select(pl.col("segments").explode().struct.field("chunk_id")).unique()
            rows = subject.chunks().select("chunk", "chunk_id").join(used, on="chunk_id", how="semi").collect()
            self._rows = dict(zip(rows["chunk_id"].to_list(), rows["chunk"].to_list(), strict=True))
            texts = RowReader(subject.home.path, subject.corpus.chunks, ["text"])
            self.chunk = lru_cache(maxsize=65_536)(lambda key: list(tokenise(texts[self._rows[key]]["text"])))
        placed = subject.table("samples").select(pl.col("segments").explode().struct.field("root_id")).unique()
        table = subject.table("roots").join(placed, on="root_id", how="semi").select("root_id", "input_ids").collect()
        self._roots = table
        self._root_rows = {key: row for row, key in enumerate(table["root_id"])}

    def tokens(self, segment: dict[str, Any]) -> list[int] | None:
        """The whole origin's tokens, or ``None`` when it can't be known."""
        if segment["kind"] == "root":
            row = self._root_rows.get(segment["root_id"])
            return None if row is None else self._roots["input_ids"][row].to_list()
        return self.chunk(segment["chunk_id"]) if segment["chunk_id"] in self._rows else None


def _samples(path: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_SAMPLES_AT_ONCE):
            yield from batch.to_pylist()


def _wrong_identity(sample: dict[str, Any]) -> list[str]:
    name, ids = sample["sample_id"], sample["input_ids"]
    if sample["length"] != len(ids):
        return [f"sample {name[:12]} says {sample['length']} tokens and has {len(ids)}"]
    if digest_json([ids, sample["segments"]]) != name:
        return [f"sample {name[:12]} has another digest"]
    return []


def _wrong_layout(sample: dict[str, Any], bos: list[int], separator: list[int] | None) -> list[str]:
    """BOS, span, separator, span, … span; without a tokenizer the first gap has to be everywhere."""
    ids, end = sample["input_ids"], None
    for segment in sample["segments"]:
        start = segment["start"]
        gap = ids[end:start] if end is not None else ids[:start]
        if end is None:
            expected = bos if separator is not None else gap
        else:
            separator = expected = gap if separator is None else separator
        if gap != expected or start >= segment["end"] or (end is not None and start < end):
            return [f"sample {sample['sample_id'][:12]}: before token {start} stands {gap}, expected {expected}"]
        end = segment["end"]
    if end != len(ids):
        return [f"sample {sample['sample_id'][:12]} has {len(ids)} tokens, its last span ends at {end}"]
    return []


def _wrong_tokens(sample: dict[str, Any], segment: dict[str, Any], origins: _Origins) -> list[str]:
    origin = origins.tokens(segment)
    if origin is None:
        return []
    first, length = segment["source_start"], segment["end"] - segment["start"]
    if first < 0 or sample["input_ids"][segment["start"] : segment["end"]] != origin[first : first + length]:
        where = f"sample {sample['sample_id'][:12]}, tokens {segment['start']} to {segment['end']} ({segment['kind']})"
        return [f"{where} are not those of their origin"]
    return []


def _count(checks: dict[str, list[str]]) -> int:
    return sum(map(len, checks.values()))
