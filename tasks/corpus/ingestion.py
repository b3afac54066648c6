"""What a corpus is made of and how: the configuration of an ingest as a whole; each part lies beside its code."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.embedders import EmbedderConfig
from storage.corpora import check_name
from storage.errors import ConfigError
from storage.tables import ROWS_PER_GROUP
from tasks.corpus.chunking import ChunkingConfig
from tasks.corpus.contamination import ContaminationConfig
from tasks.corpus.deduplication import DeduplicationConfig
from tasks.corpus.normalisation import NormalisationConfig
from tasks.corpus.python_corpus import PythonCorpusConfig
from tasks.corpus.quarantine import QuarantineConfig
from tasks.corpus.readers import ReadingConfig
from tasks.corpus.separation import SeparationConfig
from tasks.corpus.splitting import SplitConfig


class IngestConfig(BaseModel):
    """A corpus: files by path, or what the installed Python packages say about themselves, or, with neither, the one
    of this name that was ingested before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("corpus", description="Name of the corpus in the home.")
    paths: tuple[str, ...] = Field((), description="Parquet, JSONL, text or Arrow files, or folders of them.")
    python: PythonCorpusConfig | None = Field(None, description="The installed packages instead of files.")
    columns: ReadingConfig = ReadingConfig()
    normalisation: NormalisationConfig = NormalisationConfig()
    deduplication: DeduplicationConfig = DeduplicationConfig()
    contamination: ContaminationConfig = ContaminationConfig()
    split: SplitConfig = SplitConfig()
    separation: SeparationConfig = SeparationConfig()
    quarantine: QuarantineConfig = QuarantineConfig()
    chunking: ChunkingConfig = ChunkingConfig()
    embedder: EmbedderConfig = EmbedderConfig()
    chunks_per_shard: int = Field(
        2 * ROWS_PER_GROUP,
        ge=1,
        description="Chunks that are embedded and recorded together: half a minute on 2 cores. Ours.",
    )

    @field_validator("name")
    @classmethod
    def _name_is_a_file_name(cls, name: str) -> str:
        try:
            check_name(name)
        except ConfigError as error:
            raise ValueError(error.message) from error
        return name

    @model_validator(mode="after")
    def _one_source(self) -> IngestConfig:
        if self.paths and self.python is not None:
            raise ValueError("a corpus comes from `paths` or from `python`, not from both")
        return self

    @property
    def is_ready_made(self) -> bool:
        """Whether only a name is given: the corpus was ingested before."""
        return not self.paths and self.python is None

    @property
    def reading(self) -> ReadConfig:
        """The part that decides which documents there are."""
        python = self.python.model_copy(update={"split": self.split}) if self.python else None
        return ReadConfig(
            python=python,
            columns=self.columns,
            normalisation=self.normalisation,
            deduplication=self.deduplication,
            contamination_run=self.contamination.run_characters,
            split=self.split,
            quarantine=self.quarantine,
        )


class ReadConfig(BaseModel):
    """The part of an ingest's configuration that decides which documents there are and which part they fall into."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: PythonCorpusConfig | None
    columns: ReadingConfig
    normalisation: NormalisationConfig
    deduplication: DeduplicationConfig
    contamination_run: int
    split: SplitConfig
    quarantine: QuarantineConfig

    def facts(self) -> dict[str, Any]:
        """The configuration for the manifest."""
        return self.model_dump(mode="json", exclude={"quarantine"})
