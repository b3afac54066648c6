"""What an audit looks at: a version's manifest, its tables as lazy frames, and the corpus behind them where it is at
hand.

Every frame carries the column ``file`` (the shard a row came from, relative to the home), so a check can say where it
failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from storage.corpora import Corpus
from storage.findings import Finding, failed, passed
from storage.home import Home
from storage.manifests import Manifest
from storage.schemas import TABLES
from storage.versions import version_uri

ROUND_TABLES = (
    "roots",
    "screened",
    "positions",
    "candidates",
    "verdicts",
    "passes",
    "ordering",
    "negatives",
    "neighbours",
    "samples",
    "unplaced",
)
FILE = "file"
SPAN = ("sample_id", "kind", "start")
"""What names a span in a finding."""


@dataclass(frozen=True)
class Subject:
    """A version under audit; ``corpus`` is ``None`` when it is not in this home or damaged."""

    home: Home
    version: str
    manifest: Manifest
    corpus: Corpus | None

    @property
    def folder(self) -> Path:
        """The version's folder."""
        return self.home / version_uri(self.version)

    @property
    def build(self) -> dict[str, Any]:
        """The round's configuration of its data."""
        config: dict[str, Any] = self.manifest.config.get("build", self.manifest.config)
        return config

    def setting(self, section: str, key: str) -> Any:
        """A value of the round's configuration, or ``None`` when it has no such key."""
        return self.build.get(section, {}).get(key)

    def has(self, table: str) -> bool:
        """Whether the version has this table; a recipe has only those that its stages write."""
        return bool(self.manifest.names(table))

    def shards(self, table: str) -> list[Path]:
        """Files of a table, in order."""
        return [self.folder / name for name in self.manifest.names(table)]

    def table(self, name: str) -> pl.LazyFrame:
        """A table of the version with the column ``file``; ``roots`` also has its row number as ``root``."""
        row = "root" if name == "roots" else None
        return self._scan(self.shards(name), name, row)

    def tables(self) -> dict[str, pl.LazyFrame]:
        """Every table of the round; those that its recipe does not have are empty."""
        return {name: self.table(name) for name in ROUND_TABLES}

    def chunks(self) -> pl.LazyFrame:
        """The corpus's chunks with their row number as ``chunk`` and the document's digest as ``doc_id``."""
        assert self.corpus is not None
        documents = self._scan([self.home / self.corpus.documents.uri], "documents", "doc").select("doc", "doc_id")
        chunks = self._scan([self.home / self.corpus.chunks.uri], "chunks", "chunk").drop(FILE)
        return chunks.join(documents, on="doc", how="left")

    def documents(self) -> pl.LazyFrame:
        """The corpus's documents with their row number as ``doc``, without their texts."""
        assert self.corpus is not None
        return self._scan([self.home / self.corpus.documents.uri], "documents", "doc").drop(FILE, "text")

    def screened_documents(self) -> pl.LazyFrame:
        """``doc`` and ``doc_id`` of the corpus's documents of part ``screen``."""
        return self.documents().filter(pl.col("part") == "screen").select("doc", "doc_id")

    def _scan(self, files: list[Path], table: str, row: str | None) -> pl.LazyFrame:
        if files:
            frame = pl.scan_parquet(files, include_file_paths=FILE, row_index_name=row)
            frame = frame.with_columns(pl.col(FILE).str.strip_prefix(f"{self.home.path}/"))
        else:
            empty = pl.from_arrow(TABLES[table].arrow.empty_table())
            assert isinstance(empty, pl.DataFrame)
            frame = empty.lazy().with_columns(pl.lit("").alias(FILE))
            frame = frame.with_row_index(row) if row else frame
        return frame.with_columns(pl.col(row).cast(pl.Int32)) if row else frame


def judge(check: str, offending: pl.LazyFrame, show: Sequence[str], holds: str = "") -> Finding:
    """Passed when ``offending`` is empty; else failed with the number of rows, ``show`` of the first, and its file."""
    count = int(offending.select(pl.len()).collect(engine="streaming").item())
    if not count:
        return passed(check, holds)
    first: dict[str, Any] = offending.sort(*show, nulls_last=True).head(1).collect().row(0, named=True)
    where = ", ".join(f"{name} {_brief(first[name])}" for name in show)
    return failed(check, f"{count} row{'s' if count > 1 else ''}, the first: {where}", first.get(FILE) or None)


def duplicates(frame: pl.LazyFrame, key: Sequence[str]) -> pl.LazyFrame:
    """One row per key that occurs more than once."""
    return frame.group_by(key).agg(pl.len().alias("times"), pl.col(FILE).last()).filter(pl.col("times") > 1)


def missing(frame: pl.LazyFrame, other: pl.LazyFrame, on: Sequence[str]) -> pl.LazyFrame:
    """Rows whose key is not in ``other``."""
    return frame.join(other, on=list(on), how="anti")


def _brief(value: Any) -> str:
    return value[:12] if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else str(value)
