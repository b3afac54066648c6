"""What is measured after a round on request, past the papers (docs/method.md 6, ours); each on its own switch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from models.embedders import EmbedderConfig
from storage.corpora import Corpus
from storage.home import Home
from storage.manifests import Manifest
from storage.vectors import IndexConfig
from tasks.measurements.attribution import AttributionConfig, attributable_gain
from tasks.measurements.probe_screening import probe_null
from tasks.measurements.remeasuring import RemeasuringConfig, measured_under
from tasks.recipes import resolved
from tasks.rounds.building import BuildConfig


class MeasuresConfig(BaseModel):
    """Which measurements follow a round. None of them changes a sample."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attribution: AttributionConfig = Field(
        AttributionConfig(), description="Do dependencies survive at the sample's length? [ours 6]"
    )
    matrix: RemeasuringConfig = Field(
        RemeasuringConfig(), description="The data of every round under every policy so far. [ours 6]"
    )
    nulls: bool = Field(
        False,
        description="What the probe set changes by itself: the same policy again, and a policy trained as long on"
        " standard data. [ours 6]",
    )

    @property
    def any(self) -> bool:
        """Whether anything is measured."""
        return self.attribution.enabled or self.matrix.enabled or self.nulls


def attribution_figures(
    home: Home, version: str, before: str, after: str, config: AttributionConfig
) -> dict[str, float]:
    """Attributable gain of a round under the policy that was trained on it, before and after the training."""
    under = {policy: attributable_gain(home, version, policy, config).figures() for policy in (before, after)}
    return under[before] | {f"{name}_after": value for name, value in under[after].items()}


def matrix_figures(
    home: Home, versions: Sequence[str], policies: Sequence[str], config: RemeasuringConfig
) -> dict[str, float]:
    """The newest version under every policy, and every version under the newest policy.

    ``versions[j]`` is round j + 1, ``policies[k]`` the policy before round k + 1. Names: ``round_1_under_policy_0_…``.
    """
    cells = [(len(versions), k) for k in range(len(policies))]
    cells += [(j, len(policies) - 1) for j in range(1, len(versions))]
    figures: dict[str, float] = {}
    for number, k in cells:
        found = measured_under(home, versions[number - 1], policies[k], config).figures()
        figures |= {
            name.replace("measured_under", f"round_{number}_under_policy_{k}"): value for name, value in found.items()
        }
    return figures


def null_figures(
    home: Home,
    corpus: Corpus,
    before: str,
    standard: str,
    config: BuildConfig,
    *,
    embedder: EmbedderConfig,
    index: IndexConfig,
) -> dict[str, float]:
    """Overlap and drift of the probe set for the same policy read again, and for one trained on standard data."""
    build, _ = resolved(config)
    figures: dict[str, float] = {}
    for prefix, other in (("null_same", before), ("null_standard", standard)):
        figures |= probe_null(home, corpus, before, other, build, embedder=embedder, index=index).figures(prefix)
    return figures


def standard_build(config: BuildConfig, manifest: Manifest) -> BuildConfig:
    """The build of standard data with as many tokens as a round has."""
    changes: dict[str, Any] = {"recipe": "standard", "options": {}, "tokens": manifest.tokens["total"]}
    return config.model_copy(update=changes)


def measures_markdown(figures: dict[str, float], label: str) -> str:
    """The figures as a table for people."""
    lines = [f"# {label}", "", "| figure | |", "|---|---:|"]
    lines += [f"| {name.replace('_', ' ')} | {value:.4g} |" for name, value in sorted(figures.items())]
    return "\n".join(lines)
