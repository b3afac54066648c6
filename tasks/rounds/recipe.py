"""What a recipe is: the stages that make a round's samples, and who screens.

A recipe is one file in ``tasks/recipes``; it is found there by listing the folder. It names stages that exist
(``tasks.stages``) or brings its own, fixes settings of the build configuration, and declares options that
only it has.
Nothing else in the project knows a recipe by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tasks.checkpointed import Step
from tasks.rounds.round import Round
from tasks.whole_documents.supply import MostTokens

Screener = Literal["current", "base", "given", "none"]
"""Whose entropy decides: the policy that is trained in this round (or, with a lag, one of its ancestors), the
campaign's base model, a policy that is given, or nobody's."""


class NoOptions(BaseModel):
    """Options of a recipe that has none of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a round: ``run`` calls checkpointed ``steps`` and puts their tables into the round."""

    name: str
    summary: str
    run: Callable[[Round], None]
    steps: tuple[Step[Any, Any], ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A method by name.

    ``settings`` maps a section of the build configuration (or a field of its own) to what the recipe fixes there.
    ``sections`` names the sections that its stages read, for people who look at its defaults.
    """

    name: str
    source: str
    summary: str
    stages: tuple[Stage, ...]
    screener: Screener
    sections: tuple[str, ...]
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    options: type[BaseModel] = NoOptions
    is_control: bool = False
    """Made to answer a question about another recipe, not to be used by itself."""
    most_tokens: MostTokens | None = None
    """What whole documents give a recipe at most that screens nothing; the others: ``tasks.rounds.supply``."""

    @property
    def steps(self) -> tuple[Step[Any, Any], ...]:
        """The checkpointed steps of all stages."""
        return tuple(step for stage in self.stages for step in stage.steps)
