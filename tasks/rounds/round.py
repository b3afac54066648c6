"""A round while it is built: what its stages are told, and the tables they have made so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, overload

from pydantic import BaseModel

from models.embedders import EmbedderConfig
from storage.corpora import Corpus
from storage.home import Home
from storage.refs import Ref
from storage.vectors import IndexConfig
from tasks.checkpointed import Step
from tasks.corpus.tokenizing import tokenizer_digest
from tasks.engines.engine import THREADS, Engine
from tasks.resources import PolicyInputs
from tasks.rounds.building import BuildConfig
from tasks.screening.roots import probe_rows, round_rows, shards

Refs = dict[str, Ref]


class Shards(Sequence[Ref]):
    """A table's shards in order, of which some may still be in the making: asking for one waits for it alone."""

    def __init__(self, name: str, waits: Sequence[Callable[[], Refs]]) -> None:
        self._name = name
        self._waits = waits

    @overload
    def __getitem__(self, index: int) -> Ref: ...
    @overload
    def __getitem__(self, index: slice) -> Shards: ...
    def __getitem__(self, index: int | slice) -> Ref | Shards:
        if isinstance(index, slice):
            return Shards(self._name, self._waits[index])
        return self._waits[index]()[self._name]

    def __len__(self) -> int:
        return len(self._waits)


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
    engine: Engine = THREADS
    """Where the shards of steps run; no part of any key."""
    tables: dict[str, Sequence[Ref]] = field(default_factory=dict)
    """Table → its shards in order; train shards first, the probe set's last."""
    screening: list[Callable[[], float]] = field(default_factory=list)
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
        """Runs a step on every shard; its tables replace those of the same name. ``screening`` counts its seconds.

        Comes back when the first shard is done. The others are under way, so that a later step's first shards may run
        beside this one's last where the engine runs more than one at a time.
        """
        wanted: list[BaseModel] = []
        waits: list[Callable[[], Refs]] = []
        for number, shard in enumerate(inputs):
            label = f"round {self.number} shard {number}"
            waits.append(cache(self.engine.submit(step, self.home, shard, config, label=label)))
            wanted.append(shard)
        for name in waits[0]() if waits else ():
            self.tables[name] = Shards(name, waits)
        self.code_versions[step.name] = step.code_version
        if screening:
            self.screening.extend(partial(step.seconds, self.home, shard, config) for shard in wanted)

    @property
    def screening_seconds(self) -> float:
        """Of every screening step, also of those that ran in an earlier process; asked for when all are done."""
        return sum(seconds() for seconds in self.screening)
