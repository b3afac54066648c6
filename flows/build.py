"""The build flow: one round, from a policy to a published dataset version.

Which stages a round has is its recipe's to say (``tasks/recipes``). The one the project is named after:

    roots → entropy → positions → queries → candidates → verdicts → positives → hard negatives → samples → manifest

Every step is a checkpointed task per shard of roots. Retrieval stays in this process, the one owner of the index;
shards of scoring steps run where the engine has them (``tasks.engines``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import BaseModel, ConfigDict, Field

from flows.links import mlflow_links, tracked_round, version_links
from flows.logs import say_round
from models.embedders import EmbedderConfig
from storage.corpora import open_corpus
from storage.home import Home
from storage.policies import policy_folder
from storage.tracking import Tracking
from storage.vectors import IndexConfig
from tasks.engines.engine import EngineConfig, opened
from tasks.recipes import recipe_named, resolved
from tasks.rounds.building import BuildConfig, check_policy, policy_inputs
from tasks.rounds.publishing import publish_round
from tasks.rounds.report import report_round
from tasks.rounds.round import Round
from tasks.rounds.screeners import check_screener, standing_of
from tasks.rounds.supply import check_supply
from tasks.rounds.tables import RoundTables, round_manifest


class BuildInputs(BaseModel):
    """One round to build."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    campaign: str = Field(description="Name of the campaign.")
    round: int = Field(ge=1, description="Round, from 1.")
    corpus: str = Field(description="Name or digest of an ingested corpus.")
    policy: str = Field(description="Digest of the policy that will be trained on this round.")
    screener: str | None = Field(None, description="Digest of the policy that screens; null: the one that is trained.")
    previous_version: str | None = Field(
        None, description="Version of the round before, for the probe set's comparison."
    )
    embedder: EmbedderConfig = EmbedderConfig()
    index: IndexConfig = IndexConfig()
    engine: EngineConfig = EngineConfig()


ONE_AT_A_TIME: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=1)
"""Shards run one after the other: each uses all cores, and the index and the policy have one owner."""


@flow(name="build", flow_run_name="build {inputs.campaign} round {inputs.round}", task_runner=ONE_AT_A_TIME)
def build_round(home_path: str, inputs: BuildInputs, config: BuildConfig) -> str:
    """Builds a round and publishes it; returns the dataset version. A second call finds every step finished."""
    home = Home.open(Path(home_path))
    config, options = resolved(config)
    recipe = recipe_named(config.recipe)
    screener = inputs.screener or inputs.policy
    with home.lock(f"build-{inputs.campaign}-{inputs.round}"), opened(inputs.engine) as engine:
        corpus = open_corpus(home, inputs.corpus)
        folder = policy_folder(home, screener, weights=False)  # not needed where every step is finished
        check_screener(home, screener, inputs.policy)
        check_policy(folder, corpus, config, screens=recipe.screener != "none")
        if recipe.screener != "none":
            check_supply(home, corpus, config)
        this = Round(
            home=home,
            number=inputs.round,
            config=config,
            options=options,
            corpus=corpus,
            policy=policy_inputs(screener, folder, config.numeric, elsewhere=inputs.engine.kind != "threads"),
            embedder=inputs.embedder,
            index=inputs.index,
            engine=engine,
        )
        for stage in recipe.stages:
            stage.run(this)

        tables = RoundTables.of(this)
        standing = standing_of(home, recipe.screener, screener, inputs.policy, inputs.previous_version)
        manifest = round_manifest(this, recipe, tables, standing)
        tracking = Tracking(home)
        version = publish_round(
            home,
            inputs.campaign,
            manifest,
            tables.files(),
            tracking=tracking,
            measures={"screening_seconds": round(this.screening_seconds, 1)},
        )
        links = [*version_links(home, version), *mlflow_links(tracked_round(tracking, version))]
        report_round(manifest, version, links)
        say_round(manifest, version)
        return version
