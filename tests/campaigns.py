"""Whole campaigns of the small world (``tests.world``): its preset, and campaigns without plots, pages and MLflow.

preset = small_preset(world, "trial", recipe="entropylong", rounds=2)
without_pages(monkeypatch)        what a test of samples and policies does not look at takes most of the time
"""

from __future__ import annotations

from typing import Any

import pytest

from flows.presets import CampaignConfig, Preset
from models.extension import ExtensionConfig
from models.training import TrainingConfig
from tasks.corpus.ingestion import IngestConfig
from tasks.measurements.context_gain import ContextGainConfig
from tasks.training.base_policy import BasePolicyConfig
from tests.world import World

TRAINING = TrainingConfig(
    extension=ExtensionConfig(context=128),
    learning_rate=1e-3,
    accumulation=1,
    max_steps=2,
    bf16=False,
    gradient_checkpointing=False,
    device="cpu",
    threads=1,
)
EVALUATION = ContextGainConfig(long=32, short=8, targets=8, windows=2, device="cpu", threads=1)


def small_preset(world: World, name: str, screeners: tuple[str, ...] = (), **build: Any) -> Preset:
    """A preset that takes the world's corpus and policy; ``build`` changes fields of its build configuration."""
    return Preset(
        campaign=CampaignConfig(name=name, screeners=screeners),
        corpus=IngestConfig(name="world"),
        policy=BasePolicyConfig(base=str(world.folder)),
        build=world.config.model_copy(update={"roots_per_shard": 8, **build}),
        training=TRAINING,
        evaluation=EVALUATION,
    )


def without_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds and trainings without plots, pages and MLflow."""
    monkeypatch.setattr("flows.build.Tracking", lambda home: None)
    monkeypatch.setattr("flows.train.log_training", lambda *arguments, **options: "")
    monkeypatch.setattr("tasks.rounds.publishing.plot_round", lambda *arguments: [])
    monkeypatch.setattr("flows.campaign.pages_after_round", lambda *arguments: None)
