"""The campaign flow: ingest once, then round after round build, train, evaluate, each round with the policy the last
one gave.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import flow

from flows.approval import approve, check_can_suspend
from flows.build import BuildInputs, build_round
from flows.checks import check_start
from flows.evaluate import evaluate_policy
from flows.handing_over import check_train_deployment, train_by_deployment
from flows.ingest import ingest
from flows.links import version_links
from flows.logs import say
from flows.measure import measure_round
from flows.outcome import round_rows, worked_example
from flows.presets import Preset
from flows.report import pages_after_round
from flows.train import train_round
from flows.views.console import RoundRow, WorkedExample
from storage.campaigns import Campaign, RoundRecord, load_campaign, record_round, start_campaign
from storage.files import sweep
from storage.home import Home
from storage.versions import load_manifest
from tasks.engines.engine import check_engine
from tasks.recipes import recipe_named
from tasks.resources import release
from tasks.rounds.report import round_markdown
from tasks.rounds.screeners import screener_of
from tasks.training.base_policy import take_base
from tasks.training.handoff import policy_trained_on


@dataclass(frozen=True, slots=True)
class CampaignResult:
    """Where a campaign stands; ``waiting_for`` is the version whose training is awaited from elsewhere."""

    campaign: Campaign
    corpus: str
    rows: tuple[RoundRow, ...]
    example: WorkedExample | None
    waiting_for: str | None = None

    @classmethod
    def of(cls, home: Home, name: str, corpus: str, waiting_for: str | None = None) -> CampaignResult:
        """The result as the campaign's record and manifests have it."""
        record = load_campaign(home, name)
        rows = tuple(round_rows(home, record))
        return cls(record, corpus, rows, worked_example(home, record), waiting_for)


@dataclass(frozen=True, slots=True)
class Underway:
    """What goes from round to round: ``policies``, the base model first, and ``versions``, which they were trained on.

    ``waiting_for`` is a version whose training is awaited from elsewhere: no further round can begin.
    """

    corpus: str
    policies: tuple[str, ...]
    versions: tuple[str, ...] = ()
    waiting_for: str | None = None

    @property
    def number(self) -> int:
        """The next round, from 1."""
        return len(self.versions) + 1

    def after(self, version: str, policy: str) -> Underway:
        """With one more round: its version, and the policy that was trained on it."""
        return replace(self, policies=(*self.policies, policy), versions=(*self.versions, version))


@flow(name="campaign", flow_run_name="campaign {preset.campaign.name}")
def campaign(home_path: str, preset: Preset) -> CampaignResult:
    """Runs or carries on a campaign. What is finished is not done again: the same call works after any interruption.

    Raises ``ConfigError`` when a campaign of this name was started with another configuration.
    """
    home = Home.open(Path(home_path))
    name = preset.campaign.name
    check_start(home, preset)
    check_standing(preset)
    start_campaign(home, name, campaign_identity(preset))
    with home.lock(f"campaign-run-{name}"):
        sweep(home.folder("work"))
        corpus = ingest(home_path, preset.corpus, preset.index)
        underway = Underway(corpus, (take_base(home, preset.policy),))
        while underway.number <= preset.build.rounds:
            underway = play_round(home, preset, underway)
            if underway.waiting_for:
                return CampaignResult.of(home, name, corpus, underway.waiting_for)
    release()
    return CampaignResult.of(home, name, corpus)


def play_round(home: Home, preset: Preset, underway: Underway) -> Underway:
    """One round: built, shown, trained on, evaluated before and after, measured where that is wanted, and recorded."""
    name, number, policy = preset.campaign.name, underway.number, underway.policies[-1]
    label, where = f"{name} round {number}", str(home.path)
    inputs = build_inputs(preset, underway)
    version = build_round(where, inputs, preset.build)
    release()
    if preset.campaign.approve:
        ask_for_approval(home, name, number, version)
    before = evaluate_policy(where, policy, underway.corpus, preset.evaluation, label=f"{label} before training")
    trained = train_version(home, preset, version, policy, label) if preset.campaign.train else {}
    following = trained["policy"] if trained else policy_trained_on(home, version, policy)
    if following is None:
        pages_after_round(home, name)
        return replace(underway, waiting_for=version)
    after = evaluate_policy(where, following, underway.corpus, preset.evaluation, label=f"{label} after training")
    underway = underway.after(version, following)
    figures = training_figures(trained, before, after)
    if preset.measures.any:
        figures |= measure_round(where, preset, list(underway.versions), list(underway.policies), label)
    record_round(
        home,
        name,
        RoundRecord(
            round=number, version=version, policy=inputs.screener or policy, next_policy=following, figures=figures
        ),
    )
    pages_after_round(home, name)
    say(_finished_line(number, preset.build.rounds, figures))
    return underway


def build_inputs(preset: Preset, underway: Underway) -> BuildInputs:
    """What the next round is built from."""
    recipe, number = recipe_named(preset.build.recipe), underway.number
    return BuildInputs(
        campaign=preset.campaign.name,
        round=number,
        corpus=underway.corpus,
        policy=underway.policies[-1],
        screener=screener_of(recipe, underway.policies, number, preset.build.lag, preset.campaign.screeners),
        previous_version=underway.versions[-1] if underway.versions else None,
        embedder=preset.corpus.embedder,
        index=preset.index,
        engine=preset.engine,
    )


def ask_for_approval(home: Home, name: str, number: int, version: str) -> None:
    """Suspends the flow until a person has looked at the round; its pages are there by then."""
    pages_after_round(home, name)
    links = version_links(home, version)
    approve(home, name, number, version, round_markdown(load_manifest(home, version), version, links))


def check_standing(preset: Preset) -> None:
    """Raises ``ConfigError`` for options that need what is not there (an installation, Ray), before any work."""
    check_engine(preset.engine)
    if preset.campaign.approve:
        check_can_suspend()
    if preset.campaign.train and preset.campaign.hand_off == "deployment":
        check_train_deployment()


def train_version(home: Home, preset: Preset, version: str, policy: str, label: str) -> dict[str, Any]:
    """Trains here, or has the ``train`` deployment do it; the result is the same."""
    name = preset.campaign.name
    if preset.campaign.hand_off == "deployment":
        return train_by_deployment(home, version, policy, preset.training, label=label, campaign=name)
    return train_round(str(home.path), version, policy, preset.training, label=label, campaign=name)


def campaign_identity(preset: Preset) -> dict[str, Any]:
    """What may not change while a campaign goes on: everything but what changes no sample and no policy."""
    whole = dict.fromkeys(("description", "index", "engine", "plan", "measures"), True)
    where = {"hand_off": True, "approve": True}
    left_out: dict[str, bool | dict[str, bool]] = {**whole, "policy": {"shape": True}, "campaign": where}
    return preset.model_dump(mode="json", exclude=left_out)


def _finished_line(number: int, rounds: int, figures: dict[str, Any]) -> str:
    gains = [figures["context_gain_before"], figures["context_gain_after"]]
    before, after = ("–" if gain is None else f"{gain:.4f}" for gain in gains)
    return f"round {number} of {rounds} is finished: context gain {before} → {after} nats a token"


def training_figures(trained: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The figures of training and evaluation for the campaign's table; gains in nats a token."""
    figures: dict[str, Any] = {
        "context_gain_before": before["gain"],
        "context_gain_after": after["gain"],
        "context_gain_error": after["standard_error"],
        "heldout_loss_before": before["loss_long"],
        "heldout_loss_after": after["loss_long"],
    }
    if trained:
        figures |= {
            "training_seconds": trained["seconds"],
            "training_tokens": trained["tokens"],
            "first_loss": trained["steps"][0][1],
            "last_loss": trained["steps"][-1][1],
        }
    return figures
