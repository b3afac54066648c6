"""The comparison flow: the same base on several recipes at equal tokens, each recipe with each seed a campaign.

first rounds of all arms → one campaign after the other → figures, report

The first rounds are built before anything is trained: a budget that a recipe can't fill is known early.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.build import build_round
from flows.campaign import campaign, campaign_identity
from flows.checks import check_start
from flows.evaluate import evaluate_policy
from flows.ingest import ingest
from flows.presets import Preset
from flows.rounds import round_inputs
from storage.campaigns import Campaign, list_campaigns, load_campaign, start_campaign
from storage.errors import ConfigError
from storage.files import write_bytes
from storage.home import Home
from tasks.comparison.arms import (
    DONATIONS,
    Arm,
    ComparisonConfig,
    all_recipes_of,
    arm_build,
    arm_training,
    check_filled,
    check_options,
    planned_arms,
    screeners_of,
)
from tasks.comparison.report import markdown
from tasks.comparison.result import Comparison, arm_result, filled_rounds, summarised
from tasks.recipes import resolved
from tasks.resources import release
from tasks.rounds.building import check_budget
from tasks.training.base_policy import take_base


@dataclass(frozen=True, slots=True)
class Plan:
    """A comparison that is known to be possible, as far as that can be known before any work is done."""

    preset: Preset
    """With the common budget in ``build.tokens``."""
    config: ComparisonConfig
    arms: tuple[Arm, ...]

    @property
    def tokens(self) -> int:
        """Budget of every round."""
        assert self.preset.build.tokens is not None
        return self.preset.build.tokens

    @property
    def added(self) -> tuple[str, ...]:
        """Recipes that were not asked for and screen for one that was."""
        return tuple(name for name in all_recipes_of(self.config) if name not in self.config.recipes)

    def preset_of(self, arm: Arm, finished: Mapping[Arm, Campaign]) -> Preset:
        """The preset of an arm's campaign; an arm that wants policies given has them from a finished one."""
        rounds = {arm: campaign.rounds for arm, campaign in finished.items()}
        update = {
            "name": arm.campaign(self.config.name),
            "screeners": screeners_of(arm, self.config.seeds, rounds),
        }
        return self.preset.model_copy(
            update={
                "campaign": self.preset.campaign.model_copy(update=update),
                "build": arm_build(arm, self.preset.build, self.tokens),
                "training": arm_training(arm, self.preset.training),
            }
        )


def plan(home: Home, preset: Preset, config: ComparisonConfig) -> Plan:
    """Checks recipes, options, budget and sizes; makes nothing, not even the home. Raises ``ConfigError``, and what
    ``flows.checks.check_start`` raises.
    """
    arms = planned_arms(config)
    check_options(config, preset.build.options)
    if not preset.campaign.train:
        raise ConfigError(
            "campaign.train is false, and a comparison trains every arm here.", hint="Set campaign.train=true."
        )
    if preset.campaign.screeners:
        raise ConfigError(
            "campaign.screeners names policies, and a comparison chooses the screeners itself.", hint="Leave it out."
        )
    tokens = config.tokens or preset.build.tokens
    if tokens is None:
        raise ConfigError("a comparison needs a budget, and build.tokens is null.", hint=_suggestion(home, preset))
    build = preset.build.model_copy(update={"tokens": tokens})
    check_budget(build)
    planned = Plan(preset.model_copy(update={"build": build}), config, arms)
    for arm in arms:
        resolved(arm_build(arm, build, tokens))
        if arm.seed == 0 and arm.recipe not in DONATIONS:
            check_start(home, planned.preset_of(arm, {}))
    return planned


def _suggestion(home: Home, preset: Preset) -> str:
    """What to give as ``--tokens``, with what a round of the preset's campaign made where there is one."""
    name = preset.campaign.name
    rounds = filled_rounds(home, load_campaign(home, name)) if name in list_campaigns(home) else []
    if not rounds:
        return "Give --tokens N, the tokens of every round."
    least = min(made.tokens for made in rounds)
    return f"Give --tokens N; a round of campaign {name!r} made {least:,} tokens or more."


@flow(name="compare", flow_run_name="compare {config.name}")
def compare(home_path: str, preset: Preset, config: ComparisonConfig) -> Comparison:
    """Runs or carries on a comparison. What is finished is not done again.

    Raises ``ConfigError`` when a recipe can't fill the budget, naming the round; finished work stays.
    """
    home = Home.open(Path(home_path))
    planned = plan(home, preset, config)
    with home.lock(f"compare-{config.name}"):
        corpus = ingest(home_path, preset.corpus, preset.index)
        _build_first_rounds(home, planned)
        base = take_base(home, preset.policy)
        before = evaluate_policy(home_path, base, corpus, preset.evaluation, label=f"{config.name} base model")
        finished: dict[Arm, Campaign] = {}
        for arm in planned.arms:
            chosen = planned.preset_of(arm, finished)
            finished[arm] = campaign(home_path, chosen).campaign
            _check_filled(home, planned)
        arms = tuple(arm_result(home, arm, record) for arm, record in finished.items())
        found = Comparison(
            name=config.name,
            seeds=config.seeds,
            rounds=preset.build.rounds,
            tokens=planned.tokens,
            recipes=all_recipes_of(config),
            added=planned.added,
            base=before,
            arms=arms,
            summary=summarised(arms),
        )
        _report(home, found)
        return found


def report_path(home: Home, name: str) -> Path:
    """Where the page of a comparison lies."""
    return home / f"reports/compare-{name}.md"


def _build_first_rounds(home: Home, planned: Plan) -> None:
    """Round 1 of every arm that waits for no other: it needs the base model only."""
    for arm in planned.arms:
        if arm.recipe in DONATIONS:
            continue
        chosen = planned.preset_of(arm, {})
        if start_campaign(home, chosen.campaign.name, campaign_identity(chosen)).find(1) is None:
            build_round(str(home.path), round_inputs(home, chosen, 1), chosen.build)
            release()
    _check_filled(home, planned)


def _check_filled(home: Home, planned: Plan) -> None:
    names = {arm.campaign(planned.config.name) for arm in planned.arms} & set(list_campaigns(home))
    made = [filled for name in sorted(names) for filled in filled_rounds(home, load_campaign(home, name))]
    check_filled(made, planned.preset.build)


def _report(home: Home, found: Comparison) -> None:
    page = markdown(found)
    write_bytes(report_path(home, found.name), page.encode())
    create_markdown_artifact(page, key="comparison", description=f"Comparison {found.name}: {', '.join(found.recipes)}")
