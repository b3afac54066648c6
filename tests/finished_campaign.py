"""A finished campaign of two rounds with everything that an audit compares: the rounds of ``tests.rounds``, tracked in
MLflow by the product's own code, and for each a training that never ran with the records it would have left.

    home = finished_campaign(tmp_path / "home")        hard links to one that is made once a session
    python -m tests.finished_campaign HOME             one to run deploy/drills/edit_drill.py on
"""

from __future__ import annotations

import sys
import tempfile
from functools import cache
from pathlib import Path

from deploy.drills.edits import copy_home
from models.training import TrainingConfig
from storage.campaigns import RoundRecord, load_campaign, record_round
from storage.checkpoints import StepKey, checkpoint_path
from storage.digests import digest_json
from storage.files import write_json
from storage.home import Home
from storage.versions import load_manifest
from tasks.rounds.publishing import round_numbers, track_round
from tasks.training.run import TrainingResult, training_key
from tasks.training.tracking import log_training
from tests.mlflow_home import tracked
from tests.rounds import build_rounds

NAME = "world"
SECONDS = 12.25
_FOLDER = tempfile.TemporaryDirectory(prefix="policylong-campaign-")


def finished_campaign(path: Path) -> Home:
    """The campaign in a home of its own, which a test may damage by replacing files."""
    path.mkdir(parents=True)
    return copy_home(original(), path)


@cache
def original() -> Path:
    """The home that is copied; nothing may change it."""
    home = Home.open(Path(_FOLDER.name) / "home")
    rounds = build_rounds(home, 2)
    tracking = tracked(home)
    for built in rounds:
        record = load_campaign(home, NAME).find(built.manifest.round)
        assert record is not None
        assert record.next_policy is not None
        manifest = load_manifest(home, built.version)
        track_round(home, tracking, NAME, built.version, manifest, {"screening_seconds": SECONDS})
        result = _trained(home, built.version, record, int(manifest.funnel["samples"]))
        gains = {policy: _gain(home, policy, manifest.corpus) for policy in (record.policy, record.next_policy)}
        before, after = gains[record.policy], gains[record.next_policy]
        figures = {
            **round_numbers(manifest),
            "screening_seconds": SECONDS,
            "training_seconds": result.seconds,
            "training_tokens": result.tokens,
            "first_loss": result.first_loss,
            "last_loss": result.last_loss,
            "context_gain_before": before,
            "context_gain_after": after,
            "context_gain_error": 0.125,
            "heldout_loss_before": 1 + before,
            "heldout_loss_after": 1 + after,
        }
        record_round(home, NAME, record.model_copy(update={"figures": figures}))
    return home.path


def _trained(home: Home, version: str, record: RoundRecord, samples: int) -> TrainingResult:
    """The records of a training of two steps, as ``tasks.training`` writes them."""
    assert record.next_policy is not None
    result = TrainingResult(
        policy=record.next_policy,
        parent=record.policy,
        version=version,
        round=record.round,
        seconds=3.5,
        samples=samples,
        tokens=258,
        steps=((1, 2.5, 1e-3, 0.75), (2, 2.25, 5e-4, 0.5)),
        resumed_from=0,
    )
    config = TrainingConfig(device="cpu")
    key = training_key(version, record.policy, config)
    content = {"key": key.model_dump(mode="json"), "result": result.model_dump(mode="json"), "seconds": 3.5}
    write_json(home / checkpoint_path(key), content)
    log_training(home, result, config, campaign=NAME)
    return result


def _gain(home: Home, policy: str, corpus: str) -> float:
    """The record of a measured context gain; every policy has another."""
    gain = int(digest_json(policy)[:4], 16) / 65_536
    key = StepKey(step="context-gain", code_version=1, inputs={"policy": policy, "corpus": corpus}, config={})
    result = {"gain": gain, "standard_error": 0.125, "loss_long": 1 + gain}
    write_json(home / checkpoint_path(key), {"key": key.model_dump(mode="json"), "result": result})
    return gain


if __name__ == "__main__":
    finished_campaign(Path(sys.argv[1]))
