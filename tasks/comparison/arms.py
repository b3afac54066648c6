"""Several recipes at equal tokens: which campaigns a comparison is made of, in which order. [ours, docs/method.md 6]

    arms = planned_arms(config)                        every recipe with every seed, donors before those they screen
    build, training = arm_build(arm, …), arm_training(arm, …)

An arm is an ordinary campaign. Arms of one seed differ by recipe only: the same base, roots, order of samples, phase
borders (a phase is a round) and schedule. A seed changes the seed of training, the seed of assembly and the seeds among
a recipe's own options, and nothing else, so the roots are the same in all arms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from models.training import TrainingConfig
from storage.campaigns import RoundRecord
from storage.errors import ConfigError
from tasks.recipes import recipe_named
from tasks.rounds.building import BuildConfig
from tasks.rounds.recipe import Recipe


class ComparisonConfig(BaseModel):
    """What is compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        "compare",
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$",
        max_length=32,
        description="First part of the arms' names: NAME-RECIPE-sSEED. [ours 6]",
    )
    recipes: tuple[str, ...] = Field(min_length=1, description="Recipes, in the order they are shown. [ours 6]")
    seeds: int = Field(2, ge=1, description="Seeds of every recipe; two are the fewest that show a spread. [ours 6]")
    tokens: int | None = Field(
        None, ge=1, description="Budget of every round, tokens; null: the preset's build.tokens. [ours 6]"
    )

    @field_validator("recipes")
    @classmethod
    def _each_once(cls, recipes: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in recipes if recipes.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands there more than once")
        return recipes


@dataclass(frozen=True, slots=True)
class Arm:
    """One recipe with one seed; ``seed`` counts from 0, and seed 0 has the preset's own seeds."""

    recipe: str
    seed: int

    def campaign(self, comparison: str) -> str:
        """The name of its campaign."""
        return f"{comparison}-{self.recipe}-s{self.seed}"


@dataclass(frozen=True, slots=True)
class Donation:
    """Whose policies screen a recipe that wants them given: an arm of ``recipe``, ``shift`` seeds further (cyclic)."""

    recipe: str
    shift: int
    pick: Callable[[Sequence[RoundRecord]], tuple[str, ...]]
    """From the donor's rounds to the policies, one for all rounds or one per round."""

    def donor(self, seed: int, seeds: int) -> Arm:
        """The arm whose policies are given."""
        return Arm(self.recipe, (seed + self.shift) % seeds)


def last_policy(rounds: Sequence[RoundRecord]) -> tuple[str, ...]:
    """The policy that the last round gave."""
    return tuple(record.next_policy for record in rounds[-1:] if record.next_policy)


def screening_policies(rounds: Sequence[RoundRecord]) -> tuple[str, ...]:
    """The policies that screened, round by round."""
    return tuple(record.policy for record in rounds)


DONATIONS: Mapping[str, Donation] = {
    "static-late": Donation("policylong", 0, last_policy),
    "yoked": Donation("policylong", 1, screening_policies),
}


def all_recipes_of(config: ComparisonConfig) -> tuple[str, ...]:
    """The recipes of a comparison: those asked for, then those whose policies screen them.

    Raises ``ConfigError`` for an unknown recipe, one whose screener can't be had in a comparison, and one that needs
    another seed where there is none.
    """
    added: list[str] = []
    for name in config.recipes:
        recipe = recipe_named(name)
        if recipe.screener != "given":
            continue
        donation = _donation(recipe)
        if donation.shift % config.seeds == 0 and donation.shift:
            raise ConfigError(
                f"recipe {name} is screened by the policies of another seed, and --seeds is {config.seeds}.",
                hint="Give --seeds 2 or more.",
            )
        if donation.recipe not in (*config.recipes, *added):
            added.append(donation.recipe)
    return (*config.recipes, *added)


def _donation(recipe: Recipe) -> Donation:
    if recipe.name not in DONATIONS:
        raise ConfigError(
            f"recipe {recipe.name} is screened by a given policy, and a comparison does not know by which.",
            hint=f"Recipes of this kind that can be compared: {', '.join(DONATIONS)}.",
        )
    return DONATIONS[recipe.name]


def planned_arms(config: ComparisonConfig) -> tuple[Arm, ...]:
    """Every arm in the order they run: seed by seed, those that wait for another arm's policies after all others."""
    recipes = all_recipes_of(config)
    arms = [Arm(recipe, seed) for seed in range(config.seeds) for recipe in recipes]
    return tuple(sorted(arms, key=lambda arm: arm.recipe in DONATIONS))


def screeners_of(arm: Arm, seeds: int, finished: Mapping[Arm, Sequence[RoundRecord]]) -> tuple[str, ...]:
    """``campaign.screeners`` of an arm, out of the rounds of its donor; none for a recipe that chooses itself."""
    if arm.recipe not in DONATIONS:
        return ()
    donation = DONATIONS[arm.recipe]
    return donation.pick(finished[donation.donor(arm.seed, seeds)])


def arm_build(arm: Arm, build: BuildConfig, tokens: int) -> BuildConfig:
    """The configuration of an arm's rounds: its recipe, the common budget, its seeds.

    Of the preset's ``build.options`` an arm takes those its recipe has.
    """
    fields = recipe_named(arm.recipe).options.model_fields
    options: dict[str, Any] = {name: value for name, value in build.options.items() if name in fields}
    for name, field in fields.items():
        if name == "seed" or name.endswith("_seed"):
            options[name] = int(options.get(name, field.default)) + arm.seed
    assembly = build.assembly.model_copy(update={"seed": build.assembly.seed + arm.seed})
    return build.model_copy(update={"recipe": arm.recipe, "tokens": tokens, "options": options, "assembly": assembly})


def arm_training(arm: Arm, training: TrainingConfig) -> TrainingConfig:
    """The configuration of an arm's training: the preset's, with the arm's seed. The order of samples stays."""
    return training.model_copy(update={"seed": training.seed + arm.seed})


def check_options(config: ComparisonConfig, options: Mapping[str, Any]) -> None:
    """Raises ``ConfigError`` for an option of the preset that none of the recipes has."""
    known = {name for recipe in all_recipes_of(config) for name in recipe_named(recipe).options.model_fields}
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ConfigError(
            f"build.options.{unknown[0]}: none of the compared recipes has it.",
            hint=f"Their options: {', '.join(sorted(known)) or 'none'}.",
        )


@dataclass(frozen=True, slots=True)
class Filled:
    """What a round made of its budget."""

    campaign: str
    round: int
    tokens: int
    """Of all its samples."""


def check_filled(rounds: Sequence[Filled], build: BuildConfig) -> None:
    """Raises ``ConfigError`` when a round of any arm made fewer samples than the budget holds.

    The line names the round that made least, and the budget that all rounds so far could fill.
    """
    target = build.assembly.target_tokens
    wanted = (build.samples or 0) * target
    least = min(rounds, key=lambda made: made.tokens, default=None)
    if least is None or least.tokens >= wanted:
        return
    fillable = least.tokens // target * target
    hint = (
        f"Every round so far can fill --tokens {fillable}; give that comparison another --name."
        " What is finished stays, and its screening is not done again."
        if fillable
        else "Raise build.roots.roots_per_round, ingest more text, or lower build.assembly.target_tokens."
    )
    raise ConfigError(
        f"round {least.round} of {least.campaign} made {least.tokens:,} tokens of samples, its budget is {wanted:,}:"
        " recipes can't be compared at equal tokens.",
        hint=hint,
    )
