"""One round's training as a checkpointed step: done once, resumed after a kill, believed while its policy is whole."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.training import CODE_VERSION, Trained, TrainingConfig, planned_steps, train
from storage.checkpoints import StepKey, checkpoint_path
from storage.digests import short
from storage.errors import IntegrityError, PolicyError
from storage.files import read_json, write_json
from storage.home import Home
from storage.policies import add_policy, damaged_policy_files, policy_record
from tasks.progress import progress
from tasks.training.handoff import HandOff

STEP = "train"


class TrainingResult(BaseModel):
    """What a finished training left behind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str = Field(description="Digest of the next policy.")
    parent: str = Field(description="Digest of the policy it was trained from.")
    version: str = Field(description="Dataset version it was trained on.")
    round: int = Field(description="Round of that version.")
    seconds: float = Field(description="Wall-clock seconds, those before a resumed checkpoint included.")
    samples: int
    tokens: int = Field(description="Tokens trained on, repeats counted.")
    steps: tuple[tuple[int, float, float, float], ...] = Field(
        description="Per optimizer step: number, loss (nats a token), learning rate, gradient norm."
    )
    resumed_from: int = Field(description="Step the last process went on from; 0 when it began at the start.")

    @property
    def first_loss(self) -> float:
        """Loss of the first step, nats a token."""
        return self.steps[0][1] if self.steps else math.nan

    @property
    def last_loss(self) -> float:
        """Loss of the last step, nats a token."""
        return self.steps[-1][1] if self.steps else math.nan


def training_key(version: str, policy: str, config: TrainingConfig) -> StepKey:
    """What a training's outcome depends on."""
    return StepKey(
        step=STEP,
        code_version=CODE_VERSION,
        inputs={"version": version, "policy": policy},
        config=config.model_dump(mode="json"),
    )


def recorded_training(home: Home, key: StepKey) -> TrainingResult | None:
    """The result of a finished training, after the files of its policy were hashed again; ``None`` when it must run."""
    path = home / checkpoint_path(key)
    if not path.exists():
        return None
    try:
        result = TrainingResult.model_validate(read_json(path)["result"])
        damaged = damaged_policy_files(home, policy_record(home, result.policy))
        why = damaged[0] if damaged else ""
    except (IntegrityError, PolicyError, KeyError, TypeError, ValidationError) as error:
        why = str(error)
    if not why:
        return result
    home.journal({"event": "distrusted", "step": STEP, "key": key.digest, "why": why})
    path.unlink(missing_ok=True)
    return None


def run_training(home: Home, hand: HandOff, config: TrainingConfig) -> TrainingResult:
    """Trains the handed-over policy on its version, registers what comes out and records it.

    A second call returns the record. Raises ``BusyError`` when another process trains the same.
    """
    key = training_key(hand.version, hand.policy, config)
    with home.lock(f"train-{short(key.digest, 16)}"):
        known = recorded_training(home, key)
        if known is not None:
            return known
        home.journal({"event": "started", "step": STEP, "key": key.digest})
        work = home.folder(f"work/{STEP}/{short(key.digest, 32)}")
        trained = _train_with_progress(hand, config, work)
        add_policy(
            home,
            trained.folder,
            trained.digest,
            parent=hand.policy,
            trained_on=hand.version,
            round=hand.manifest.round,
            files=trained.files,
            link=True,
            trained_here=True,
        )
        result = _result(hand, trained)
        write_json(
            home / checkpoint_path(key),
            {"key": key.model_dump(mode="json"), "result": result.model_dump(mode="json"), "seconds": result.seconds},
        )
        home.journal({"event": "finished", "step": STEP, "key": key.digest, "seconds": result.seconds})
        shutil.rmtree(work)
        return result


def _train_with_progress(hand: HandOff, config: TrainingConfig, work: Path) -> Trained:
    done = 0

    def on_step(step: int, _: int, __: float) -> None:
        nonlocal done
        advance(step - done)
        done = step

    total = planned_steps(hand.rows, config)
    with progress(f"round {hand.manifest.round}: training", total=total, unit="steps") as advance:
        return train(hand.folder, hand.samples, work, config, on_step=on_step)


def _result(hand: HandOff, trained: Trained) -> TrainingResult:
    return TrainingResult(
        policy=trained.digest,
        parent=hand.policy,
        version=hand.version,
        round=hand.manifest.round,
        seconds=round(trained.seconds, 3),
        samples=trained.samples,
        tokens=trained.tokens,
        steps=tuple((s.step, s.loss, s.learning_rate, s.gradient_norm) for s in trained.steps),
        resumed_from=trained.resumed_from,
    )
