"""Measurements of a policy on a published version: how they compute, and one record of each, so none is made twice.

    version = MeasuredVersion.open(home, "3f2a…")
    result = measured_once(home, key, Result, lambda: …)      # reads the record when there is one

A measurement costs forward passes and changes no sample: it has its own switch (``enabled``), its key is the policy's
digest, the version and its configuration, and its result is a small JSON record. [ours, docs/method.md 6]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import PreTrainedTokenizerBase

from models.policy import DTypeName, pick_device
from storage.checkpoints import StepKey, checkpoint_path
from storage.corpora import Corpus, corpus_to_read
from storage.digests import short
from storage.errors import IntegrityError, PolicyError
from storage.files import read_json, write_json
from storage.home import Home
from storage.manifests import Manifest
from storage.policies import policy_folder
from storage.refs import Ref
from storage.schemas import TableSchema
from storage.tables import read_table, read_tables
from storage.versions import load_manifest, resolve_version, table_refs
from tasks.screening.passages import Passages
from tasks.screening.verification import VerificationConfig
from tasks.training.handoff import tokenizer_of

Result = TypeVar("Result", bound=BaseModel)


class MeasurementConfig(BaseModel):
    """How a policy computes while it is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(False, description="Measure after every round. [ours 6]")
    seed: int = Field(0, description="Salt of the hashes that choose what is measured. [ours 6]")
    dtype: DTypeName = Field("float32", description="Type the policy computes in. [ours 6]")
    device: str = Field("auto", description="auto (the GPU when there is one), cpu, cuda. [ours 6]")
    threads: int | None = Field(None, ge=1, description="Torch threads; null: torch's choice. [ours 6]")
    tokens_per_batch: int = Field(
        8192, ge=1, description="Tokens of a forward pass; a longer context runs alone. [ours 6]"
    )
    remote_code: bool = Field(
        False, description="Run model code that lies in the policy's folder. Off unless you trust it. [ours 6]"
    )


def measurement_key(step: str, code_version: int, inputs: Mapping[str, str], config: MeasurementConfig) -> StepKey:
    """What a measurement depends on: digests of its inputs and its configuration, the switch left out."""
    settings = config.model_dump(mode="json", exclude={"enabled"}) | {"device": pick_device(config.device).type}
    return StepKey(step=step, code_version=code_version, inputs=dict(inputs), config=settings)


def measured_once(home: Home, key: StepKey, kind: type[Result], measure: Callable[[], Result]) -> Result:
    """The recorded result of a measurement, or that of ``measure()``, recorded before it is returned.

    A record that can't be read is removed, noted in the journal and made anew. Raises ``BusyError`` when another
    process makes the same measurement for more than an hour.
    """
    known = _recorded(home, key, kind)
    if known is not None:
        return known
    with home.lock(f"{key.step}-{key.digest[:16]}", wait_seconds=3600):
        known = _recorded(home, key, kind)
        if known is None:
            home.journal({"event": "started", "step": key.step, "key": key.digest})
            began = time.perf_counter()
            known = measure()
            seconds = round(time.perf_counter() - began, 3)
            write_json(
                home / checkpoint_path(key),
                {
                    "key": key.model_dump(mode="json"),
                    "result": known.model_dump(mode="json"),
                    "seconds": seconds,
                },
            )
            home.journal({"event": "finished", "step": key.step, "key": key.digest, "seconds": seconds})
        return known


def _recorded(home: Home, key: StepKey, kind: type[Result]) -> Result | None:
    path = home / checkpoint_path(key)
    if not path.exists():
        return None
    try:
        return kind.model_validate(read_json(path)["result"])
    except (IntegrityError, KeyError, TypeError, ValidationError) as error:
        home.journal({"event": "distrusted", "step": key.step, "key": key.digest, "why": str(error)})
        path.unlink(missing_ok=True)
        return None


@dataclass(frozen=True, slots=True)
class MeasuredVersion:
    """A published version, opened to be measured."""

    home: Home
    version: str
    manifest: Manifest

    @classmethod
    def open(cls, home: Home, text: str) -> MeasuredVersion:
        """The version a user means (round number, prefix or full); raises ``InputError`` when there is none."""
        manifest = load_manifest(home, resolve_version(home, text))
        return cls(home, manifest.version, manifest)

    @property
    def verification(self) -> VerificationConfig:
        """The test its dependencies passed, with separator and exclusion rule."""
        return VerificationConfig.model_validate(self.manifest.config.get("verification", {}))

    @property
    def corpus(self) -> Corpus:
        """The corpus it was built from; raises ``InputError`` when it is not in this home."""
        return corpus_to_read(self.home, self.manifest.corpus)

    def refs(self, table: str) -> tuple[Ref, ...]:
        """Its shards of a table, in order; none when its recipe has no such table."""
        return table_refs(self.version, self.manifest, table)

    def frame(self, schema: TableSchema, columns: Sequence[str]) -> pl.DataFrame:
        """Some columns of all shards of a table, in order; no rows when its recipe has no such table."""
        empty = read_tables(self.home.path, (), schema).select(columns)
        return pl.concat([empty, *(read_table(self.home.path, ref, columns) for ref in self.refs(schema.name))])

    def passages(self, tokenizer: PreTrainedTokenizerBase) -> Passages:
        """Its roots and the corpus's chunks with their tokens."""
        corpus = self.corpus
        return Passages(
            self.home,
            roots=self.refs("roots")[0],
            chunks=corpus.chunks,
            documents=corpus.documents,
            tokenizer=tokenizer,
        )

    def check_tokens(self, policy: str, folder: Path, *, remote_code: bool) -> None:
        """Raises ``PolicyError`` unless a policy reads the same tokens as the one that made the version."""
        if policy == self.manifest.policy:
            return
        own = policy_folder(self.home, self.manifest.policy, weights=False)
        if tokenizer_of(folder, remote_code) != tokenizer_of(own, remote_code):
            raise PolicyError(
                f"policy {short(policy)} has another tokenizer than policy {short(self.manifest.policy)}, whose tokens"
                f" dataset version {short(self.version)} is made of.",
                hint="Measure with a policy of the same family.",
            )
