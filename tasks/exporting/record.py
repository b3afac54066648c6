"""What an export is: ``export.json``, written last, names the version, the options and every file with its digest.

    FOLDER/export.json              a folder without it is no export
    FOLDER/unfinished-export.json   what an interrupted export has done so far

It names no time, host or path of a machine, so the same version and options give the same record.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from storage.errors import IntegrityError
from storage.files import read_json
from storage.inside import inside

RECORD = "export.json"
UNFINISHED = "unfinished-export.json"
FORMAT = 1
QUANTILES = (5, 25, 50, 75, 95)
Format = Literal["parquet", "jsonl", "datasets"]
Row = dict[str, Any]
Name = Annotated[str, AfterValidator(inside)]


class ExportOptions(BaseModel):
    """What decides an export's content, beside the version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format
    tokenizer: str | None = Field(
        None, description="SHA-256 over the files of the tokenizer it was packed with anew; null: the version's tokens."
    )


class ExportFile(BaseModel):
    """One file of an export."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)
    rows: int | None = Field(None, description="Rows, for a table.", ge=0)


class Counts(BaseModel):
    """What a shard of samples holds; those of an export are the sums."""

    model_config = ConfigDict(extra="forbid")

    lengths: dict[int, int] = Field(default_factory=dict, description="Tokens of a sample → how many have so many.")
    segments: int = 0
    segments_empty: int = Field(0, description="Segments that the other tokenizer gives no token for: left out.")
    unknown_tokens: int = Field(0, description="Tokens that stand for text the other tokenizer does not know.")
    dependencies: int = Field(0, description="Of the version.")
    carried: int = Field(0, description="Dependencies of the export.")
    carried_inside: int = Field(0, description="Of those: the token holds text before the uncertain one as well.")
    not_carried: dict[str, int] = Field(default_factory=dict, description="Reason → dependencies; each is listed.")

    def add(self, other: Counts) -> None:
        """Adds another shard's counts."""
        for length, number in other.lengths.items():
            self.lengths[length] = self.lengths.get(length, 0) + number
        for reason, number in other.not_carried.items():
            self.not_carried[reason] = self.not_carried.get(reason, 0) + number
        for name in ("segments", "segments_empty", "unknown_tokens", "dependencies", "carried", "carried_inside"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def left_out(self) -> int:
        """Segments and dependencies that are listed as not carried."""
        return self.segments_empty + sum(self.not_carried.values())

    def add_sample(self, row: Mapping[str, Any]) -> None:
        """Counts a sample's length."""
        self.lengths[row["length"]] = self.lengths.get(row["length"], 0) + 1


class Lengths(BaseModel):
    """How long the samples of an export are, tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    least: int
    most: int
    mean: float
    quantiles: dict[str, int] = Field(description="p05, …: the shortest length that so many percent do not exceed.")

    @classmethod
    def of(cls, lengths: Mapping[int, int]) -> Lengths | None:
        """The distribution of {tokens: samples}; None where there are no samples."""
        total = sum(lengths.values())
        if not total:
            return None
        quantiles, seen, wanted = {}, 0, list(QUANTILES)
        for length in sorted(lengths):
            seen += lengths[length]
            while wanted and 100 * seen >= wanted[0] * total:
                quantiles[f"p{wanted.pop(0):02d}"] = length
        mean = sum(length * number for length, number in lengths.items()) / total
        return cls(least=min(lengths), most=max(lengths), mean=round(mean, 3), quantiles=quantiles)


class Repacked(BaseModel):
    """What changed with the tokenizer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokenizer: str = Field(description="Hub id, or the name of the folder it came from; its files are in tokenizer/.")
    note: str
    segments: int
    segments_empty: int
    unknown_tokens: int
    dependencies: int
    carried: int
    carried_inside: int
    not_carried: dict[str, int]


class ExportRecord(BaseModel):
    """``export.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    version: str = Field(pattern=r"^[0-9a-f]{64}$")
    round: int
    recipe: str
    options: ExportOptions
    rows: int = Field(description="Samples.")
    tokens: int
    lengths: Lengths | None
    repacked: Repacked | None = None
    files: dict[Name, ExportFile] = Field(description="Every file of the folder but this one, by relative name.")


class Unfinished(BaseModel):
    """``unfinished-export.json``: which shards are done, with what they hold."""

    model_config = ConfigDict(extra="forbid")

    version: str
    options: ExportOptions
    files: dict[Name, ExportFile] = Field(default_factory=dict)
    shards: dict[str, Counts] = Field(default_factory=dict)


def is_export(path: str | Path) -> bool:
    """Whether a folder is an export, finished or not."""
    folder = Path(path)
    return folder.is_dir() and any((folder / name).is_file() for name in (RECORD, UNFINISHED))


def read_record(folder: Path) -> ExportRecord:
    """The record of an export; raises ``IntegrityError`` when it is missing, damaged or of another format."""
    path = folder / RECORD
    try:
        record = ExportRecord.model_validate(read_json(path))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
        raise IntegrityError(f"{path} is not an export's record: {where}: {error.errors()[0]['msg']}.") from error
    if record.format != FORMAT:
        raise IntegrityError(f"{path} has format {record.format}, this version of policylong reads {FORMAT}.")
    return record


def present_files(folder: Path) -> set[str]:
    """Relative names of everything in a folder that is not a folder."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()}
