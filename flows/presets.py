"""Presets: one YAML file that says everything about a campaign, checked as a whole before anything runs.

load_preset("quickstart")                          a preset that comes with policylong (deploy/presets)
load_preset("my.yaml", ["campaign.rounds=2"])      a file of one's own, with single values changed
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from flows.overrides import configured
from models.training import TrainingConfig
from storage.errors import ConfigError
from storage.vectors import IndexConfig
from tasks.corpus.ingestion import IngestConfig
from tasks.engines.engine import EngineConfig
from tasks.measurements.context_gain import ContextGainConfig
from tasks.measurements.measures import MeasuresConfig
from tasks.planning.yields import PlanConfig
from tasks.recipes import recipe_named, resolved
from tasks.rounds.building import BuildConfig, check_budget, check_sizes
from tasks.training.base_policy import BasePolicyConfig

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "presets"


class CampaignConfig(BaseModel):
    """A campaign: rounds of build, train, evaluate under one name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("campaign", description="Name of the campaign in the home, in Prefect and in MLflow.")
    screeners: tuple[str, ...] = Field(
        (),
        description="Policies that screen, for a recipe that wants them given: one for all rounds, or one per round.",
    )
    train: bool = Field(
        True,
        description="false: the campaign waits for a checkpoint trained elsewhere (policylong policy add) after each"
        " round.",
    )
    hand_off: Literal["direct", "deployment"] = Field(
        "direct",
        description="Where versions are trained on. direct: in the campaign's own process; deployment: by the train"
        " deployment of a standing installation (policylong up), whose worker may be another machine's. Changes no"
        " version.",
    )
    approve: bool = Field(
        False,
        description="true: in a standing installation the campaign waits after each dataset version until a person"
        " resumes it in Prefect's page. Changes no version.",
    )


class Preset(BaseModel):
    """Everything about a campaign."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""
    campaign: CampaignConfig = CampaignConfig()
    corpus: IngestConfig = Field(description="What is ingested; a bare name is a corpus that was ingested before.")
    policy: BasePolicyConfig = BasePolicyConfig()
    index: IndexConfig = IndexConfig()
    engine: EngineConfig = EngineConfig()
    build: BuildConfig = BuildConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: ContextGainConfig = ContextGainConfig()
    measures: MeasuresConfig = MeasuresConfig()
    plan: PlanConfig = PlanConfig()

    @field_validator("corpus", mode="before")
    @classmethod
    def _a_name_is_enough(cls, corpus: Any) -> Any:
        return {"name": corpus} if isinstance(corpus, str) else corpus


def check_settings(preset: Preset) -> None:
    """Raises ``ConfigError`` for what can be known wrong from a preset alone: recipe, its options, sizes, budget."""
    build, _ = resolved(preset.build)
    if recipe_named(build.recipe).screener == "none":
        check_budget(build)
    else:
        chunk = None if preset.corpus.is_ready_made else preset.corpus.chunking.max_tokens
        check_sizes(build, chunk_tokens=chunk)


def preset_names() -> list[str]:
    """Names of the presets that come with policylong."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_preset(name_or_path: str, overrides: Sequence[str] = ()) -> Preset:
    """A preset by name or path with ``section.field=value`` changes; raises ``ConfigError`` naming file and key."""
    path = _find(name_or_path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is not valid YAML ({str(error).splitlines()[0]}).") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name} holds no mapping of sections.", hint="Look at: policylong config show.")
    preset = configured(Preset, values, overrides, where=path.name)
    check_settings(preset)
    return preset


def _find(name_or_path: str) -> Path:
    if name_or_path in preset_names():
        return FOLDER / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    if path.is_file():
        return path
    raise ConfigError(
        f"there is no preset {name_or_path!r}.",
        hint=f"Presets: {', '.join(preset_names())}; or give the path of a YAML file.",
    )
