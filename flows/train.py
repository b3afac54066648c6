"""The training flow: a dataset version and its policy in, the next policy out. A deployment of its own.

verify the version against its manifest → train → register → MLflow → report
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact

from flows.links import mlflow_links, version_links
from flows.logs import say
from models.training import TrainingConfig
from storage.campaigns import current_name
from storage.digests import short
from storage.home import Home
from tasks.training.handoff import hand_off
from tasks.training.report import training_report
from tasks.training.run import TrainingResult, run_training
from tasks.training.tracking import log_training


@flow(name="train", flow_run_name="train {label}")
def train_round(
    home_path: str,
    version: str,
    policy: str,
    config: TrainingConfig,
    label: str = "",
    campaign: str | None = None,
    tracking_uri: str | None = None,
) -> dict[str, Any]:
    """Trains ``policy`` on dataset ``version`` and returns the result (``tasks.training.run.TrainingResult``) as JSON.

    Refuses a version that is not what its manifest says (``IntegrityError``) and one that another policy built
    (``PolicyError``). A second call with the same arguments returns the recorded result; a killed one carries on.
    """
    home = Home.open(Path(home_path))
    done = TrainingResult.model_validate(train_policy(home_path, version, policy, config, label))
    name = campaign or current_name(home) or "policylong"
    run = log_run(home_path, done.model_dump(mode="json"), config, name, tracking_uri, label)
    create_markdown_artifact(
        key="training-report",
        markdown=training_report(done, campaign=name, links=[*version_links(home, done.version), *mlflow_links(run)]),
        description=f"Training of round {done.round} on version {short(done.version)}",
    )
    say(
        f"round {done.round}: {len(done.steps):,} steps on {done.samples:,} samples, {done.tokens:,} tokens, in"
        f" {done.seconds:,.0f} s; loss {done.first_loss:.4f} → {done.last_loss:.4f} nats a token;"
        f" next policy {short(done.policy)}"
    )
    return done.model_dump(mode="json")


@task(name="train-policy", task_run_name="train policy {label}")
def train_policy(home_path: str, version: str, policy: str, config: TrainingConfig, label: str) -> dict[str, Any]:
    """Verifies, trains, registers; see ``tasks.training.run.run_training``."""
    home = Home.open(Path(home_path))
    return run_training(home, hand_off(home, version, policy), config).model_dump(mode="json")


@task(name="log-training", task_run_name="log training {label}")
def log_run(
    home_path: str, result: dict[str, Any], config: TrainingConfig, campaign: str, tracking_uri: str | None, label: str
) -> str:
    """Logs the training in MLflow, once; see ``tasks.training.tracking.log_training``."""
    home = Home.open(Path(home_path))
    return log_training(home, TrainingResult.model_validate(result), config, campaign=campaign, uri=tracking_uri)
