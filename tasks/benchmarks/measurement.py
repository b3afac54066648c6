"""What a benchmark gives: a figure of ours beside the figures of the alternatives, and the ratio it was made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Figure(BaseModel):
    """One quantity as it was measured: the median of the repeats, the smallest and the largest of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    value: float
    low: float
    high: float
    repeats: int = Field(1, ge=1)

    @classmethod
    def of(cls, label: str, values: Sequence[float]) -> Figure:
        """The figure of one or more repeats."""
        return cls(label=label, value=median(values), low=min(values), high=max(values), repeats=len(values))


class Target(BaseModel):
    """What ``ratio`` should reach."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sense: Literal["at least", "at most"]
    value: float

    def met(self, ratio: float) -> bool:
        """Whether a ratio reaches the target."""
        return ratio >= self.value if self.sense == "at least" else ratio <= self.value

    def __str__(self) -> str:
        """As it stands in the table."""
        return f"{'≥' if self.sense == 'at least' else '≤'} {self.value:.3g}"


class Measurement(BaseModel):
    """One row: ``ours`` and ``alternatives`` in ``unit``; ``ratio`` is what ``ratio_of`` says, ``target`` holds for
    it; ``conditions`` are what the figures depend on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    unit: str
    ours: Figure
    alternatives: tuple[Figure, ...] = ()
    ratio: float | None = None
    ratio_of: str = ""
    target: Target | None = None
    conditions: Mapping[str, str | int | float] = Field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is none, or no ratio."""
        return None if self.target is None or self.ratio is None else self.target.met(self.ratio)


class Machine(BaseModel):
    """What the figures were measured on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    processor: str
    cores: int
    threads: int
    memory_gb: float
    gpu: str | None
    system: str
    versions: Mapping[str, str]
    date: str
    load_before: float = Field(
        description="Processes that wanted a core over the minute before; other work shows here."
    )
    load_after: float


class Report(BaseModel):
    """All measurements of one call."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: Machine
    size: str
    seconds: float
    measurements: tuple[Measurement, ...]
    left_out: tuple[str, ...] = Field((), description="What was not measured, and why.")
