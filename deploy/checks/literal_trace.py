"""A trace as a person would make it by hand: tables opened one by one, rows picked by plain filters, JSON read as JSON.

Nothing here is taken from ``tasks``. The result has the form of ``policylong trace --json``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deploy.checks.literal_texts import SegmentText, Vocabulary
from storage.errors import InputError, IntegrityError

Row = dict[str, Any]
AROUND, NEAR, CONTEXT = 400, 120, 700
"""Characters that a trace shows around tokens, around a position, and of a helping chunk (docs/audit.md)."""


def version_folder(home: Path, version: str) -> Path:
    """Folder of a version: a round of the current campaign, CAMPAIGN:ROUND, or the first characters."""
    name, _, number = version.rpartition(":")
    if number.isdecimal() and len(number) < 4:
        campaign = name or (home / "campaigns/current").read_text(encoding="utf-8").strip()
        rounds = json.loads((home / f"campaigns/{campaign}.json").read_text(encoding="utf-8"))["rounds"]
        version = next((r["version"] for r in rounds if r["round"] == int(number)), "none")
    found = [path.parent for path in (home / "versions").glob(f"{version[:16]}*/manifest.json")]
    if len(found) != 1:
        raise InputError(f"{len(found)} versions of {home} fit {version!r}, expected one.")
    return found[0]


def rows_of(files: Sequence[Path], column: str, wanted: Collection[Any], columns: Sequence[str]) -> Iterator[Row]:
    """Rows whose ``column`` is among ``wanted``, each with its ``number`` in the table, over all files in order."""
    number, values = 0, None
    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(64 if "text" in columns else 65_536, columns=[*{column, *columns}]):
                values = values or pa.array(list(wanted), batch.column(column).type)
                for place in pc.indices_nonzero(pc.is_in(batch.column(column), value_set=values)).to_pylist():
                    yield batch.slice(place, 1).to_pylist()[0] | {"number": number + place}
                number += len(batch)


class LiteralTrace:
    """One version of a home and what stands behind it.

    Raises ``IntegrityError`` when its manifest was changed, ``InputError`` where corpus or policy are not in this home.
    """

    def __init__(self, home: Path, version: str) -> None:
        self.home, self.folder = home, version_folder(home, version)
        data = (self.folder / "manifest.json").read_bytes()
        self.version = hashlib.sha256(data).hexdigest()
        if not self.version.startswith(self.folder.name):
            raise IntegrityError(f"{self.folder}/manifest.json was changed.", hint="policylong audit checks it.")
        self.manifest: Row = json.loads(data)
        self._corpus = home / "corpora" / self.manifest["corpus"][:16]
        record = home / "policies" / self.manifest["policy"][:16] / "policy.json"
        for path in (record, self._corpus / "documents.parquet", self._corpus / "chunks.parquet"):
            if not path.is_file():
                raise InputError(f"{path} is missing: without it there is nothing to compare with.")
        self.vocabulary = Vocabulary(home / json.loads(record.read_bytes())["folder"])
        self.sizes = [pq.read_metadata(path).num_rows for path in self._files("samples")]
        self._text_of = lru_cache(maxsize=512)(self._read_text)

    def _files(self, table: str) -> list[Path]:
        entries = self.manifest["files"].items()
        return sorted(self.folder / name for name, entry in entries if entry["table"] == table)

    def lengths(self) -> list[int]:
        """Tokens of every sample, in order."""
        return [n for path in self._files("samples") for n in pq.read_table(path, columns=["length"])[0].to_pylist()]

    def helped(self) -> Iterator[tuple[int, int]]:
        """Every token that a context helped: number of the sample, place in it."""
        row = 0
        for path in self._files("samples"):
            for dependencies in pq.read_table(path, columns=["dependencies"])[0].to_pylist():
                yield from sorted({(row, dependency["position"]) for dependency in dependencies})
                row += 1

    def open(self, row: int) -> None:
        """Reads what the tables say about one sample: its roots, chunks, documents and all rows of its roots."""
        left, file = row, 0
        while left >= self.sizes[file]:
            left, file = left - self.sizes[file], file + 1
        self.row, self.sample = row, pq.read_table(self._files("samples")[file]).slice(left, 1).to_pylist()[0]
        segments = self.sample["segments"]
        named = {key: {s[key] for s in segments if s[key]} for key in ("root_id", "chunk_id", "doc_id")}
        self.roots = {r["root_id"]: r for r in self._rows("roots", "root_id", named["root_id"])}
        self.root_ids = {row["number"]: name for name, row in self.roots.items()}
        tables = ("screened", "positions", "candidates", "verdicts", "negatives")
        self.of_roots = {name: list(self._rows(name, "root", self.root_ids)) for name in tables}
        columns = ("doc", "char_start", "char_end")
        chunks = rows_of([self._corpus / "chunks.parquet"], "chunk_id", named["chunk_id"], columns)
        self.chunks = {c["chunk_id"]: c for c in chunks}
        self.chunk_ids = {c["number"]: name for name, c in self.chunks.items()}
        seeds = {n["seed_chunk"] for n in self.of_roots["negatives"] if n["chunk"] in self.chunk_ids}
        self.seed_ids = self._chunk_names(seeds) if seeds else {}
        about = ("text", "source", "title", "part")
        documents = rows_of([self._corpus / "documents.parquet"], "doc_id", named["doc_id"], about)
        self.documents = {d["doc_id"]: d for d in documents}
        self.neighbours = list(self._rows("neighbours", "doc", {d["number"] for d in self.documents.values()}))
        self._text_of.cache_clear()

    def _rows(self, table: str, column: str, wanted: Collection[Any]) -> Iterator[Row]:
        files = self._files(table)
        columns = pq.read_schema(files[0]).names if files else ()
        return rows_of(files, column, wanted, columns) if wanted else iter(())

    def _chunk_names(self, numbers: Collection[int]) -> dict[int, str]:
        names: dict[int, str] = {}
        first = 0
        with pq.ParquetFile(self._corpus / "chunks.parquet") as file:
            for batch in file.iter_batches(65_536, columns=["chunk_id"]):
                inside = [n for n in numbers if first <= n < first + len(batch)]
                names |= {n: str(batch[0][n - first]) for n in inside}
                first += len(batch)
        return names

    def segment_at(self, token: int) -> int | None:
        """Number of the segment that holds a token, or None between two."""
        segments = enumerate(self.sample["segments"])
        return next((number for number, s in segments if s["start"] <= token < s["end"]), None)

    def place(self, number: int) -> tuple[Row, int, int] | None:
        """Document, first character and character after the last of a segment's origin; None for a tag."""
        segment = self.sample["segments"][number]
        document = self.documents[segment["doc_id"]]
        if segment["kind"] == "tag":
            return None
        if segment["chunk_id"] or segment["root_id"]:
            origin = self.chunks[segment["chunk_id"]] if segment["chunk_id"] else self.roots[segment["root_id"]]
            if document["number"] != origin["doc"]:
                raise IntegrityError(f"segment {number} of sample {self.row} and its origin name two documents.")
            return document, origin["char_start"], origin["char_end"]
        return document, 0, len(document["text"])

    def text(self, number: int) -> SegmentText | None:
        """A segment's tokens over its document; None for a tag."""
        return self._text_of(number)

    def _read_text(self, number: int) -> SegmentText | None:
        place, segment = self.place(number), self.sample["segments"][number]
        if place is None:
            return None
        document, start, end = place
        ids = self.sample["input_ids"][segment["start"] : segment["end"]]
        skipped: Sequence[int] = ()
        if segment["source_start"]:
            root = None if segment["chunk_id"] else self.roots.get(segment["root_id"])
            whole = root["input_ids"] if root else self.vocabulary.encode(document["text"][start:end])
            skipped = whole[: segment["source_start"]]
        own = tuple(self.vocabulary.bytes_of([token]) for token in ids)
        return SegmentText(document["text"], start, len(self.vocabulary.bytes_of(skipped)), own)

    @cached_property
    def policies(self) -> list[Row]:
        """The policy that screened and its parents, from ``policy.json`` files. Where weights came out of several
        versions, the one that the round before it was built on counts."""
        records = [json.loads(path.read_bytes()) for path in (self.home / "policies").glob("*/policy.json")]
        known = {record["digest"]: record for record in records}
        line: list[Row] = []
        digest, asked_by = self.manifest["policy"], self.manifest
        while digest:
            if digest not in known:
                raise InputError(f"policy {digest[:12]} is not in {self.home}: its parents can't be read.")
            record = known[digest]
            versions = [record["trained_on"], *record["also_trained_on"]]
            named = asked_by["parent_version"] if asked_by and asked_by["policy"] == digest else None
            version = named if named in versions else versions[0]
            facts = {"digest": digest, "parent": record["parent"], "trained_on": version}
            line.append(facts | {"rounds": record["round"], "known": True})
            before = self.home / "versions" / (version or "-")[:16] / "manifest.json"
            digest, asked_by = record["parent"], json.loads(before.read_bytes()) if before.is_file() else None
        return line
