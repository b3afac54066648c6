"""The manifest: everything that a dataset version is, and nothing about when, where or by whom it was made.

Its canonical JSON is the file ``manifest.json``, and the SHA-256 of that file is the dataset version.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from storage.digests import canonical_json, digest_bytes, digest_file, digest_json
from storage.errors import IntegrityError
from storage.home import Home
from storage.refs import Ref

MANIFEST = "manifest.json"
FORMAT = 2
Source = Ref | Path | bytes
"""Where a published file comes from: a table of the home, any file, or the bytes themselves (card, config)."""


Relation = Literal["on-policy", "lagged", "given", "unscreened"]
"""on-policy: the very policy that is trained; lagged: its ancestor, ``lag`` rounds back; given: another policy of the
same tokenizer; unscreened: no policy was asked, ``policy`` names whose tokenizer cut the tokens."""


class FileEntry(BaseModel):
    """One file of a version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(description="Digest of the bytes.", pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(description="Size.", ge=0)
    rows: int | None = Field(None, description="Rows, for a table.", ge=0)
    table: str | None = Field(None, description="Name of the table's schema (storage.schemas), for a table.")


class NumericEnvironment(BaseModel):
    """What the last bits of a float depend on: across different ones entropies agree to a tolerance only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field(description="Kind of device: cpu, cuda, …")
    dtype: str = Field(description="Type the policy computes in.")
    threads: int = Field(description="Torch threads per task.", ge=1)
    packing: bool = Field(False, description="Contexts were read end to end in one row, not padded.")
    kernel: Literal["torch", "triton"] = Field("torch", description="What computed the entropies; torch: from logits.")
    versions: dict[str, str] = Field(description="Library → version (torch, transformers, …).")

    @property
    def ways(self) -> str:
        """Packing and kernel for people, to be put behind the rest; empty where they are the plain ones."""
        packed = ", contexts packed" if self.packing else ""
        return packed + ("" if self.kernel == "torch" else f", entropies by {self.kernel}")

    @model_serializer(mode="wrap")
    def _without_plain_ways(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_plain_ways(dump(self))


def without_plain_ways(document: dict[str, Any]) -> dict[str, Any]:
    """A dump that says nothing of packing and kernel where they are the plain ones, so that no digest knows of them."""
    plain = {"packing": False, "kernel": "torch"}
    return {name: value for name, value in document.items() if name not in plain or value != plain[name]}


class Manifest(BaseModel):
    """One round's identity. Field order does not matter: the canonical JSON sorts the keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(FORMAT, description="Format of manifest and folder.")
    round: int = Field(description="Round of its campaign, from 1.", ge=1)
    recipe: str = Field(description="Name of the recipe.")
    config: dict[str, Any] = Field(description="The whole resolved configuration, without paths.")
    config_digest: str = Field(description="SHA-256 of the canonical JSON of ``config``.")
    corpus: str = Field(description="Digest of the corpus.")
    embedder: str = Field(description="Digest of the embedder.")
    policy: str = Field(description="Digest of the policy that screened this round.")
    parent_policy: str | None = Field(description="Digest of the policy before it; null for the base model.")
    parent_version: str | None = Field(description="The version the policy was trained on; null for the base model.")
    previous_version: str | None = Field(
        None, description="The campaign's round before; its probe set is what this round's is compared with."
    )
    relation: Relation = Field(
        "on-policy", description="How the policy that screened stands to the one that is trained on this version."
    )
    lag: int = Field(0, description="Rounds between the policy that screened and the one that is trained.", ge=0)
    files: dict[str, FileEntry] = Field(description="Every file of the folder but manifest.json, by relative name.")
    numeric: NumericEnvironment
    funnel: dict[str, int] = Field(description="Counts from roots to samples (tasks.rounds.funnel).")
    tokens: dict[str, int] = Field(description="Token counts of the samples (tasks.rounds.funnel).")
    seeds: dict[str, int] = Field(description="Every seed of a random choice.")
    code_versions: dict[str, int] = Field(description="Step → version of its code.")
    figures: dict[str, float] = Field(description="Mean gain, overlap with the round before, …")

    @field_validator("files")
    @classmethod
    def _names_stay_inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            parts = PurePosixPath(name).parts
            if not parts or name.startswith("/") or ".." in parts or "\\" in name or name == MANIFEST:
                raise ValueError(f"file name {name!r} is not a relative name inside the version")
        return files

    @field_validator("figures")
    @classmethod
    def _figures_are_numbers(cls, figures: dict[str, float]) -> dict[str, float]:
        for name, value in figures.items():
            if not math.isfinite(value):
                raise ValueError(f"figure {name} is {value}, expected a finite number (leave out what is not known)")
        return figures

    @model_validator(mode="after")
    def _config_has_its_digest(self) -> Manifest:
        if digest_json(self.model_dump(mode="json")["config"]) != self.config_digest:
            raise ValueError("config_digest is not the digest of config")
        return self

    @model_validator(mode="after")
    def _lag_has_its_relation(self) -> Manifest:
        if (self.relation == "lagged") != (self.lag > 0):
            raise ValueError(f"relation {self.relation} does not go with a lag of {self.lag}")
        return self

    @property
    def canonical(self) -> bytes:
        """The bytes of manifest.json."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def version(self) -> str:
        """The dataset version: SHA-256 of the canonical bytes."""
        return digest_bytes(self.canonical)

    def names(self, table: str) -> list[str]:
        """Names of a table's shards, in order."""
        return sorted(name for name, entry in self.files.items() if entry.table == table)


def shard_name(table: str, shard: int) -> str:
    """Where a table's shard lies in the folder: samples in their own folder, the tables behind them beside it."""
    return f"{'samples' if table == 'samples' else 'tables'}/{table}-{shard:05d}.parquet"


def entry_of(home: Home, source: Source) -> FileEntry:
    """The manifest's entry for a file; a ref's recorded digest is taken over and checked when the file is published."""
    if isinstance(source, bytes):
        return FileEntry(sha256=digest_bytes(source), bytes=len(source))
    if isinstance(source, Ref):
        return FileEntry(
            sha256=source.sha256, bytes=_size(home / source.uri, source.uri), rows=source.rows, table=source.table
        )
    return FileEntry(sha256=digest_file(source), bytes=_size(source, str(source)))


def entries_of(home: Home, files: Mapping[str, Source]) -> dict[str, FileEntry]:
    """The manifest's ``files`` for what is going to be published."""
    return {name: entry_of(home, source) for name, source in files.items()}


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in these bytes; raises ``IntegrityError`` naming ``where`` when it is not one in canonical form."""
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise IntegrityError(
            f"{where} is not a manifest: {place}: {first['msg']}.", hint="policylong audit checks it."
        ) from error
    if manifest.format != FORMAT:
        raise IntegrityError(f"{where} has format {manifest.format}, this version of policylong reads {FORMAT}.")
    if manifest.canonical != data:
        raise IntegrityError(f"{where} was changed: it is not in canonical form.", hint="policylong audit checks it.")
    return manifest


def _size(path: Path, name: str) -> int:
    if not path.is_file():
        raise IntegrityError(f"{name} is missing.", hint="Run the same command again to make it anew.")
    return path.stat().st_size
