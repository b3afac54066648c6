"""A round while it is built: what its stages are told, and the tables they have made so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from models.embedders import EmbedderConfig
from storage.corpora import Corpus
from storage.home import Home
from storage.refs import Ref
from storage.vectors import IndexConfig
from tasks.checkpointed import Step
from tasks.corpus.tokenizing import tokenizer_digest
from tasks.resources import PolicyInputs
from tasks.rounds.building import BuildConfig
from tasks.screening.roots import probe_rows, round_rows, shards

Refs = dict[str, Ref]


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one recipe. Stages run one after the other; each reads ``tables`` and adds to it."""

    home: Home
    number: int
    config: BuildConfig
    options: BaseModel
    corpus: Corpus
    policy: PolicyInputs
    """Who screens; for a recipe that screens nothing, whose tokenizer cuts the tokens."""
    embedder: EmbedderConfig
    index: IndexConfig
    tables: dict[str, list[Ref]] = field(default_factory=dict)
    """Table → its shards in order; train shards first, the probe set's last."""
    seconds: list[float] = field(default_factory=list)
    """Of every screening step, also of those that ran in an earlier process."""
    code_versions: dict[str, int] = field(default_factory=dict)
    """Step → version of its code, of the steps that were asked for."""

    @property
    def tokenizer(self) -> str:
        """Digest of the tokenizer's files."""
        return tokenizer_digest(Path(self.policy.folder))

    @property
    def roots(self) -> Ref:
        """The roots table."""
        return self.tables["roots"][0]

    @property
    def train_shards(self) -> list[range]:
        """Rows of the roots this round trains on, shard by shard."""
        return shards(round_rows(self.config.roots, self.number), self.config.roots_per_shard)

    @property
    def all_shards(self) -> list[range]:
        """The train shards and, where there are probe roots, the probe set."""
        probe = probe_rows(self.config.roots)
        return [*self.train_shards, *([probe] if probe else [])]

    def whole(self, step: Step[Any, Any], inputs: BaseModel, config: BaseModel, *, label: str = "") -> None:
        """Runs a step that is not cut into shards; its tables replace those of the same name."""
        for name, ref in step(self.home, inputs, config, label=label or f"round {self.number}").items():
            self.tables[name] = [ref]
        self.code_versions[step.name] = step.code_version

    def over_shards(
        self, step: Step[Any, Any], config: BaseModel, inputs: Iterable[BaseModel], *, screening: bool = True
    ) -> None:
        """Runs a step on every shard; its tables replace those of the same name. ``screening`` counts its seconds."""
        wanted = list(inputs)
        waits: list[Callable[[], Refs]] = [
            step.submit(self.home, shard, config, label=f"round {self.number} shard {number}")
            for number, shard in enumerate(wanted)
        ]
        found: Sequence[Refs] = [wait() for wait in waits]
        for name in dict.fromkeys(name for refs in found for name in refs):
            self.tables[name] = [refs[name] for refs in found]
        self.code_versions[step.name] = step.code_version
        if screening:
            self.seconds.extend(step.seconds(self.home, shard, config) for shard in wanted)
