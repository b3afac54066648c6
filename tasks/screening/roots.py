"""Roots: the windows of documents in which the policy's uncertainty is looked for (docs/method.md 2.0, ours).

Documents of the screened part are visited in the order of a hash of their id and cut into windows; of each at most
``windows_per_document`` are taken, chosen by hash. A document that has many times as many is not cut as a whole: it is
divided into ``windows_per_document`` stretches, and in each a window is cut behind a place chosen by hash. The table's
order is again by hash, so that every round takes its own slice of it, disjoint from all others and the same in every
recipe that looks for uncertainty. Probe roots come from the documents set aside for them at ingest; they are screened
in every round and never trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.policy import load_tokenizer
from storage.checkpoints import work_uri
from storage.digests import digest_json
from storage.errors import InputError
from storage.home import Home
from storage.refs import Ref
from storage.schemas import ROOTS
from storage.tables import RowReader, read_table, write_table
from tasks.checkpointed import step
from tasks.corpus.splitting import Part, unit_hash
from tasks.corpus.windows import Encode, Window, cut_window_behind, cut_windows, reach_of
from tasks.progress import track

Role = Literal["train", "probe"]
LONG = 4
"""A document is not cut as a whole from so many times the text on that its windows need. Ours: a book is 650,000
characters, of which a few windows are wanted."""


class RootsConfig(BaseModel):
    """How roots are cut and chosen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root_tokens: int = Field(
        1536, ge=16, description="Longest root, tokens: what a chunk leaves of a context of about 2K. [ours 2.5]"
    )
    min_tokens: int = Field(64, ge=2, description="Shorter windows are left out, tokens. [ours 2.0]")
    windows_per_document: int = Field(8, ge=1, description="Most windows of one document. [ours 2.0]")
    roots_per_round: int = Field(48, ge=1, description="Roots a round screens. [ours 2.0]")
    probe_roots: int = Field(12, ge=0, description="Roots screened in every round and never trained on. [ours 2.0]")
    seed: int = Field(0, description="Salt of the hashes that choose and order. [ours 2.0]")

    @model_validator(mode="after")
    def _limits_fit(self) -> RootsConfig:
        if self.min_tokens > self.root_tokens:
            raise ValueError(f"min_tokens {self.min_tokens} is larger than root_tokens {self.root_tokens}")
        return self


class RootsInputs(BaseModel):
    """What the roots table depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: Ref
    tokenizer: str = Field(description="Digest of the tokenizer's files.")
    rounds: int = Field(ge=1, description="Rounds of the campaign; each takes roots_per_round roots.")
    tokenizer_folder: str = Field(exclude=True)


@step("roots", code_version=2)
def cut_roots(home: Home, inputs: RootsInputs, config: RootsConfig) -> dict[str, Ref]:
    """The roots table of a campaign: probe roots first, then ``rounds x roots_per_round`` roots in the order of their
    use.

    Raises ``InputError`` when the corpus yields fewer.
    """
    encode = _encoder(Path(inputs.tokenizer_folder))
    ids = read_table(home.path, inputs.documents, ["doc_id", "part"]).with_row_index("doc")
    rows: list[dict[str, Any]] = []
    plan: tuple[tuple[Role, Part, int], ...] = (
        ("probe", "probe", config.probe_roots),
        ("train", "screen", config.roots_per_round * inputs.rounds),
    )
    for role, part, wanted in plan:
        found = _roots_of_part(home, inputs.documents, ids, role, part, wanted, encode, config)
        if len(found) < wanted:
            raise InputError(
                f"the corpus yields {len(found)} {role} roots of {config.min_tokens} to {config.root_tokens} tokens,"
                f" {wanted} are needed ({_needed(role)}).",
                hint="Ingest more documents, lower build.roots.roots_per_round, build.roots.probe_roots or"
                " build.rounds, or raise build.roots.windows_per_document.",
            )
        rows.extend(found)
    key = cut_roots.key(inputs, config)
    return {"roots": write_table(home.path, work_uri(key, "roots"), ROOTS, rows)}


def _needed(role: Role) -> str:
    """Which options ask for the roots of a role."""
    return "build.roots.probe_roots" if role == "probe" else "build.rounds x build.roots.roots_per_round"


def _roots_of_part(
    home: Home,
    documents: Ref,
    ids: pl.DataFrame,
    role: Role,
    part: Part,
    wanted: int,
    encode: Encode,
    config: RootsConfig,
) -> list[dict[str, Any]]:
    """At least ``wanted`` roots of a part where it has them, cut back to ``wanted``, ordered by hash."""
    if not wanted:
        return []
    order = sorted(
        ids.filter(pl.col("part") == part).select("doc", "doc_id").iter_rows(),
        key=lambda row: unit_hash("root-document", config.seed, row[1]),
    )
    reader = RowReader(home.path, documents, ["doc_id", "text"])
    found: list[dict[str, Any]] = []
    wave = max(64, wanted)
    for start in range(0, len(order), wave):
        several = sorted(order[start : start + wave])
        for doc, _ in track(several, len(several), f"cutting {role} roots", "documents"):
            found.extend(_roots_of_document(doc, reader[doc], role, encode, config))
        if len(found) >= wanted:
            break
    reader.close()
    found.sort(key=lambda root: unit_hash("root", config.seed, root["root_id"]))
    return found[:wanted]


def _roots_of_document(
    doc: int, row: dict[str, Any], role: Role, encode: Encode, config: RootsConfig
) -> Iterator[dict[str, Any]]:
    for window in sorted(_windows(row["doc_id"], row["text"], encode, config), key=lambda w: w.start):
        yield {
            "root_id": digest_json([row["doc_id"], window.start, window.end, window.ids]),
            "doc": doc,
            "role": role,
            "char_start": window.start,
            "char_end": window.end,
            "input_ids": window.ids,
        }


def _windows(doc_id: str, text: str, encode: Encode, config: RootsConfig) -> list[Window]:
    """At most ``windows_per_document`` windows that do not overlap; of a long document only these are tokenised.

    Long is more than ``LONG`` times the characters that so many windows are looked for in.
    """
    count, limits = config.windows_per_document, (config.root_tokens, config.min_tokens)
    if len(text) <= LONG * count * reach_of(config.root_tokens):
        windows = list(cut_windows(text, encode, max_tokens=limits[0], min_tokens=limits[1]))
        windows.sort(key=lambda w: unit_hash("window", config.seed, doc_id, w.start))
        return windows[:count]
    stretch = len(text) // count
    found: list[Window] = []
    for number in range(count):
        begin = number * stretch
        place = begin + int(unit_hash("window-place", config.seed, doc_id, number) * stretch / 2)
        window = cut_window_behind(text, place, begin + stretch, encode, max_tokens=limits[0], min_tokens=limits[1])
        found.extend([window] if window else [])
    return found


def _encoder(folder: Path) -> Encode:
    tokenizer = load_tokenizer(folder)

    def encode(text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return encoded["input_ids"], encoded["offset_mapping"]

    return encode


def round_rows(config: RootsConfig, round_number: int) -> range:
    """The rows of the roots table that round ``round_number`` (from 1) screens."""
    first = config.probe_roots + (round_number - 1) * config.roots_per_round
    return range(first, first + config.roots_per_round)


def probe_rows(config: RootsConfig) -> range:
    """The rows of the probe roots."""
    return range(config.probe_roots)


def shards(rows: range, roots_per_shard: int) -> list[range]:
    """Rows cut into shards of at most ``roots_per_shard``, in order."""
    return [rows[start : start + roots_per_shard] for start in range(0, len(rows), roots_per_shard)]
