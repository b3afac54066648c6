"""A training is done once: what is recorded is believed while its policy is whole, and two at once are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.extension import ExtensionConfig
from models.training import TrainingConfig
from storage.checkpoints import checkpoint_path
from storage.digests import short
from storage.errors import BusyError
from storage.home import Home
from storage.policies import policy_folder, policy_record
from storage.versions import version_uri
from tasks.training.handoff import HandOff, add_base_policy, hand_off
from tasks.training.report import training_report
from tasks.training.run import TrainingResult, recorded_training, run_training, training_key
from tasks.training.tracking import log_training
from tests.mlflow_home import tracked
from tests.rounds import build_round
from tests.tiny_policies import tiny_policy

CONFIG = TrainingConfig(
    extension=ExtensionConfig(context=256),
    learning_rate=1e-2,
    batch=1,
    accumulation=1,
    max_steps=4,
    bf16=False,
    save_every_steps=2,
    device="cpu",
    threads=1,
)


@pytest.fixture
def hand(home: Home, tmp_path: Path) -> HandOff:
    policy = add_base_policy(home, tiny_policy(tmp_path / "parent")).digest
    return hand_off(home, build_round(home, policy=policy).version, policy)


def _events(home: Home) -> list[str]:
    lines = (home / "journal.jsonl").read_text().splitlines() if (home / "journal.jsonl").exists() else []
    return [line.split('"event": "')[1].split('"')[0] for line in lines if '"step": "train"' in line]


def test_the_second_call_reads_the_record_and_the_work_folder_is_gone(home: Home, hand: HandOff) -> None:
    first = run_training(home, hand, CONFIG)
    assert run_training(home, hand, CONFIG) == first
    assert _events(home) == ["started", "finished"]
    record = policy_record(home, first.policy)
    assert (record.parent, record.trained_on, record.round) == (hand.policy, hand.version, 1)
    assert list((home / "work/train").iterdir()) == []
    assert [step for step, *_ in first.steps] == [1, 2, 3, 4]
    assert first.last_loss < first.first_loss
    other = CONFIG.model_copy(update={"learning_rate": 2e-2})
    assert run_training(home, hand, other).policy != first.policy


def test_a_record_whose_policy_is_damaged_is_not_believed_and_the_same_policy_is_trained_again(
    home: Home, hand: HandOff
) -> None:
    first = run_training(home, hand, CONFIG)
    key = training_key(hand.version, hand.policy, CONFIG)
    weights = policy_folder(home, first.policy) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert recorded_training(home, key) is None
    assert run_training(home, hand, CONFIG).policy == first.policy
    assert weights.read_bytes() != bytes(content)

    (home / checkpoint_path(key)).write_text("{}")
    assert run_training(home, hand, CONFIG).policy == first.policy
    assert _events(home).count("distrusted") == 2


def test_two_trainings_of_the_same_at_once_are_refused(home: Home, hand: HandOff) -> None:
    key = training_key(hand.version, hand.policy, CONFIG)
    with home.lock(f"train-{short(key.digest, 16)}"), pytest.raises(BusyError, match="another process works on train-"):
        run_training(home, hand, CONFIG)


def test_a_training_is_logged_once_with_its_version_as_training_dataset(home: Home, hand: HandOff) -> None:
    tracking = tracked(home)
    result = run_training(home, hand, CONFIG)
    run = log_training(home, result, CONFIG, campaign="demo")
    assert log_training(home, result, CONFIG, campaign="demo") == run
    found = tracking.find_version(hand.version, kind="training")
    assert found is not None
    assert (found.run_id, found.experiment, found.status) == (run, "demo", "FINISHED")
    assert found.metrics["last_loss"] == found.metrics["loss"] == result.last_loss
    assert found.params["learning_rate"] == "0.01"
    (dataset,) = found.datasets
    folder = (home / version_uri(hand.version)).as_uri()
    assert (dataset.name, dataset.digest, dataset.source) == ("demo-round-1", hand.version, folder)
    assert dataset.context == "training"
    assert tracking.current("demo") == result.policy


def test_the_report_names_everything_and_keeps_first_and_last_step(home: Home) -> None:
    steps = tuple((step, 5.0 - step / 100, 1e-3, 0.5) for step in range(1, 201))
    result = TrainingResult(
        policy="a" * 64,
        parent="b" * 64,
        version="c" * 64,
        round=2,
        seconds=12.5,
        samples=10,
        tokens=20_480,
        steps=steps,
        resumed_from=7,
    )
    lines = training_report(result, campaign="demo").splitlines()
    rows = [line for line in lines if line.startswith(tuple(f"| {step} |" for step, *_ in steps))]
    assert (rows[0], rows[-1]) == ("| 1 | 4.9900 | 1.00e-03 | 0.500 |", "| 200 | 3.0000 | 1.00e-03 | 0.500 |")
    assert len(rows) == 24
    text = "\n".join(lines)
    for said in ("demo 2", "`aaaaaaaaaaaa`", "`bbbbbbbbbbbb`", "`cccccccccccc`", "20,480", "1,638 tokens/s", "step 7"):
        assert said in text
