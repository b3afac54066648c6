"""The build flow: one round, from the current policy to a published dataset version.

    roots → entropy → positions → queries → candidates → verdicts → positives → hard negatives → samples → manifest

Every step is a checkpointed task per shard of roots. Retrieval stays in this process, the one owner of the index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import BaseModel, ConfigDict, Field

from models.embedders import EmbedderConfig
from storage.corpora import Corpus, open_corpus
from storage.home import Home
from storage.policies import policy_folder
from storage.refs import Ref
from storage.tracking import Tracking
from storage.vectors import IndexConfig
from tasks.assembly import AssemblyInputs, assemble
from tasks.building import BuildConfig, check_policy, policy_inputs
from tasks.checkpointed import Step
from tasks.entropy import EntropyInputs, screen_entropy
from tasks.negatives import NegativesInputs, find_negatives
from tasks.publishing import publish_round
from tasks.resources import PolicyInputs
from tasks.retrieval import RetrievalInputs, retrieve
from tasks.roots import RootsInputs, cut_roots, probe_rows, round_rows, shards
from tasks.round_report import report_round
from tasks.round_tables import RoundTables, round_manifest
from tasks.tokenizing import tokenizer_digest
from tasks.verification import VerificationInputs, verify


class BuildInputs(BaseModel):
    """One round to build."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    campaign: str = Field(description="Name of the campaign.")
    round: int = Field(ge=1, description="Round, from 1.")
    corpus: str = Field(description="Name or digest of an ingested corpus.")
    policy: str = Field(description="Digest of the policy that screens.")
    parent_version: str | None = Field(None, description="Version of the round before, for the probe set's comparison.")
    embedder: EmbedderConfig = EmbedderConfig()
    index: IndexConfig = IndexConfig()


ONE_AT_A_TIME: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=1)
"""Shards run one after the other: each uses all cores, and the index and the policy have one owner."""


@flow(name="build", flow_run_name="build {inputs.campaign} round {inputs.round}", task_runner=ONE_AT_A_TIME)
def build_round(home_path: str, inputs: BuildInputs, config: BuildConfig) -> str:
    """Builds a round and publishes it; returns the dataset version. A second call finds every step finished."""
    home = Home.open(Path(home_path))
    config = config.with_recipe()
    with home.lock(f"build-{inputs.campaign}-{inputs.round}"):
        corpus = open_corpus(home, inputs.corpus)
        folder = policy_folder(home, inputs.policy)
        policy = policy_inputs(inputs.policy, folder, config.numeric)
        check_policy(folder, corpus, config)
        work = RoundWork(home, inputs, config, corpus, policy)
        roots = work.roots()
        train, probe = (
            shards(round_rows(config.roots, inputs.round), config.roots_per_shard),
            [probe_rows(config.roots)],
        )

        screened = work.screen(roots, [*train, *probe])
        candidates = work.retrieve(roots, screened)
        verdicts = work.verify(roots, screened, candidates)
        negatives = work.negatives(roots, verdicts[: len(train)])
        assembled = work.assemble(roots, train, verdicts[: len(train)], negatives)

        tables = RoundTables.gather(roots, screened, candidates, verdicts, negatives, assembled)
        manifest = round_manifest(home, inputs.round, config, corpus, policy, inputs.parent_version, tables)
        version = publish_round(
            home,
            inputs.campaign,
            manifest,
            tables.files(),
            tracking=Tracking(home),
            measures={"screening_seconds": round(sum(work.seconds), 1)},
        )
        report_round(manifest, version)
        return version


Refs = dict[str, Ref]


@dataclass(frozen=True, slots=True)
class RoundWork:
    """The steps of one round, each over all shards; runs are named by round and shard."""

    home: Home
    inputs: BuildInputs
    config: BuildConfig
    corpus: Corpus
    policy: PolicyInputs
    seconds: list[float] = field(default_factory=list)
    """Of every screening step, also of those that ran in an earlier process."""

    def roots(self) -> Ref:
        """The campaign's roots: the same table in every round."""
        inputs = RootsInputs(
            documents=self.corpus.documents,
            tokenizer=tokenizer_digest(Path(self.policy.folder)),
            rounds=self.config.rounds,
            tokenizer_folder=self.policy.folder,
        )
        return cut_roots(self.home, inputs, self.config.roots, label="all rounds")["roots"]

    def screen(self, roots: Ref, rows: Sequence[range]) -> list[Refs]:
        """Entropy, thresholds and positions of every shard."""
        return self._over_shards(
            screen_entropy,
            self.config.entropy,
            (EntropyInputs(roots=roots, first_root=r.start, stop_root=r.stop, policy=self.policy) for r in rows),
        )

    def retrieve(self, roots: Ref, screened: Sequence[Refs]) -> list[Refs]:
        """Candidates of every shard."""
        return self._over_shards(
            retrieve,
            self.config.retrieval,
            (
                RetrievalInputs(
                    positions=refs["positions"],
                    roots=roots,
                    corpus=self.corpus.digest,
                    embedder=self.inputs.embedder,
                    index=self.inputs.index,
                    exact=self.inputs.index.exact,
                )
                for refs in screened
            ),
        )

    def verify(self, roots: Ref, screened: Sequence[Refs], candidates: Sequence[Refs]) -> list[Refs]:
        """Verdicts of every shard."""
        return self._over_shards(
            verify,
            self.config.verification,
            (
                VerificationInputs(
                    positions=found["positions"],
                    candidates=refs["candidates"],
                    roots=roots,
                    corpus=self.corpus.digest,
                    policy=self.policy,
                )
                for found, refs in zip(screened, candidates, strict=True)
            ),
        )

    def negatives(self, roots: Ref, verdicts: Sequence[Refs]) -> list[Refs]:
        """Hard negatives of every shard."""
        return self._over_shards(
            find_negatives,
            self.config.negatives,
            (
                NegativesInputs(
                    verdicts=refs["verdicts"],
                    roots=roots,
                    corpus=self.corpus.digest,
                    index=self.inputs.index,
                    exact=self.inputs.index.exact,
                )
                for refs in verdicts
            ),
        )

    def assemble(self, roots: Ref, rows: Sequence[range], verdicts: Sequence[Refs], negatives: Sequence[Refs]) -> Refs:
        """The round's samples."""
        inputs = AssemblyInputs(
            shards=tuple((r.start, r.stop) for r in rows),
            verdicts=tuple(refs["verdicts"] for refs in verdicts),
            negatives=tuple(refs["negatives"] for refs in negatives),
            roots=roots,
            corpus=self.corpus.digest,
            tokenizer=tokenizer_digest(Path(self.policy.folder)),
            separator=self.config.verification.separator,
            negatives_per_positive=self.config.negatives.negatives_per_positive,
            policy=self.policy,
        )
        return assemble(self.home, inputs, self.config.assembly, label=f"round {self.inputs.round}")

    def _over_shards(self, step: Step[Any, Any], config: BaseModel, inputs: Iterable[BaseModel]) -> list[Refs]:
        shards = list(inputs)
        waits: list[Callable[[], Refs]] = [
            step.submit(self.home, shard, config, label=f"round {self.inputs.round} shard {number}")
            for number, shard in enumerate(shards)
        ]
        refs = [wait() for wait in waits]
        self.seconds.extend(step.seconds(self.home, shard, config) for shard in shards)
        return refs
