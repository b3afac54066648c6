"""A finished training in MLflow: a run with the version as its training dataset, and the policy in the registry."""

from __future__ import annotations

from models.training import TrainingConfig
from storage.addresses import split_credentials
from storage.digests import digest_json, short
from storage.files import read_json, write_json
from storage.home import Home
from storage.policies import policy_folder
from storage.tracked_runs import NEXT_POLICY_TAG, TrackedDataset
from storage.tracking import Tracking, tracking_uri
from storage.versions import version_uri
from tasks.training.run import TrainingResult


def dataset_name(campaign: str, round: int) -> str:
    """Name of a round's dataset in MLflow: the same in the run that built it and in the one that trained on it."""
    return f"{campaign}-round-{round}"


def log_training(
    home: Home, result: TrainingResult, config: TrainingConfig, *, campaign: str, uri: str | None = None
) -> str:
    """Logs a training and registers its policy under the campaign's name; returns the id of the run.

    A training that was logged to this store before is not logged again. The record that it was names the store, without
    credentials: a server of an installation has another address the next time. Raises ``ServiceError`` when MLflow does
    not answer.
    """
    address = tracking_uri(home, uri)
    where = split_credentials(address)[0]
    done = home / f"checkpoints/log-training/{digest_json([where, campaign, result.model_dump(mode='json')])}.json"
    if done.exists():
        return str(read_json(done)["run_id"])
    tracking = Tracking(home, address)
    run = tracking.training_run(campaign, result.round, result.version, policy=result.parent)
    tracking.log_round(
        run,
        params=config.model_dump(mode="json"),
        metrics={
            "seconds": result.seconds,
            "tokens": result.tokens,
            "samples": result.samples,
            "first_loss": result.first_loss,
            "last_loss": result.last_loss,
        },
        series={
            "loss": [(step, loss) for step, loss, _, _ in result.steps],
            "learning_rate": [(step, rate) for step, _, rate, _ in result.steps],
            "gradient_norm": [(step, norm) for step, _, _, norm in result.steps],
        },
        dataset=TrackedDataset(
            name=dataset_name(campaign, result.round),
            digest=result.version,
            source=(home / version_uri(result.version)).as_uri(),
            context="training",
            profile={"samples": result.samples, "tokens": result.tokens},
        ),
        tags={NEXT_POLICY_TAG: result.policy},
    )
    number = tracking.register_policy(campaign, policy_folder(home, result.policy), run, result.policy)
    tracking.set_current(campaign, number)
    write_json(done, {"run_id": run, "model_version": number, "policy": short(result.policy), "store": where})
    return run
