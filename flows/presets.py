"""Presets: one YAML file that says everything about a campaign, checked as a whole before anything runs.

load_preset("quickstart")                          a preset that comes with policylong (deploy/presets)
load_preset("my.yaml", ["campaign.rounds=2"])      a file of one's own, with single values changed
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.training import TrainingConfig
from storage.errors import ConfigError
from storage.vectors import IndexConfig
from tasks.base_policy import BasePolicyConfig
from tasks.building import BuildConfig
from tasks.context_gain import ContextGainConfig
from tasks.ingestion import IngestConfig

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "presets"


class CampaignConfig(BaseModel):
    """A campaign: rounds of build, train, evaluate under one name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("campaign", description="Name of the campaign in the home, in Prefect and in MLflow.")
    train: bool = Field(
        True,
        description="false: the campaign waits for a checkpoint trained elsewhere (policylong policy add) after each"
        " round.",
    )


class Preset(BaseModel):
    """Everything about a campaign."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""
    campaign: CampaignConfig = CampaignConfig()
    corpus: IngestConfig
    policy: BasePolicyConfig = BasePolicyConfig()
    index: IndexConfig = IndexConfig()
    build: BuildConfig = BuildConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: ContextGainConfig = ContextGainConfig()


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
    for override in overrides:
        _override(values, override)
    try:
        return Preset.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the preset"
        raise ConfigError(
            f"{path.name}: {key}: {first['msg']}"
            + (f" (and {error.error_count() - 1} more)." if error.error_count() > 1 else "."),
            hint="policylong config show prints every key with its meaning.",
        ) from error


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


def _override(values: dict[str, Any], override: str) -> None:
    key, found, text = override.partition("=")
    if not found or not key:
        raise ConfigError(f"--set {override!r} is not KEY=VALUE.", hint="For example: --set campaign.name=trial.")
    target: Any = values
    *parents, last = key.split(".")
    for parent in parents:
        target = target.setdefault(parent, {}) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            raise ConfigError(f"--set {key}: {parent} is not a section.")
    target[last] = yaml.safe_load(text)
