"""Training: the loss is the textbook's, runs repeat to the bit, and a killed run ends where an undisturbed one does."""

from __future__ import annotations

import itertools
import json
import math
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from models.extension import ExtensionConfig
from models.heads import split_model
from models.policy import load_config, load_policy, policy_digest
from models.training import Trained, TrainingConfig, planned_steps, rate_factor, train
from models.training_loss import next_token_loss
from storage.errors import ConfigError, InputError, IntegrityError, PolicyError, ResourceError
from tests.tiny_policies import tiny_policy

LENGTH = 96
CONFIG = TrainingConfig(
    extension=ExtensionConfig(context=128),
    learning_rate=1e-2,
    batch=2,
    accumulation=2,
    epochs=2,
    bf16=False,
    gradient_checkpointing=False,
    save_every_steps=3,
    device="cpu",
    threads=1,
)
STEPS = 10


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("training") / "parent")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _samples(tmp_path_factory.mktemp("samples") / "samples-00000.parquet")


@pytest.fixture(scope="module")
def undisturbed(parent: Path, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(parent, [samples], tmp_path_factory.mktemp("run"), CONFIG)


def _samples(path: Path, *, rows: int = 19, length: int = LENGTH, top: int = 40) -> Path:
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(0, top, (length,), generator=generator).tolist() for _ in range(rows)]
    pq.write_table(
        pa.table({"sample_id": list(map(str, range(rows))), "input_ids": pa.array(ids, pa.list_(pa.int32()))}), path
    )
    return path


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2"])
def test_loss_and_gradients_in_blocks_are_those_of_the_whole_model(tmp_path: Path, family: str) -> None:
    model: Any = load_policy(tiny_policy(tmp_path / family, family), device="cpu").model
    ids = torch.randint(0, 300, (2, 50), generator=torch.Generator().manual_seed(1))
    expected = model(input_ids=ids, labels=ids).loss
    expected.backward()
    reference = {name: p.grad.clone() for name, p in model.named_parameters()}
    trunk, head = split_model(model, torch.device("cpu"))
    for block in (7, 98, 1000):
        model.zero_grad()
        loss = next_token_loss(trunk, head, ids, block=block)
        loss.backward()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, reference[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.2), (2, 0.2), (7, 0.0), (1000, 0.2)])
def test_no_step_has_rate_zero_and_one_has_the_peak(steps: int, warmup: float) -> None:
    factors = [rate_factor(step, steps, warmup) for step in range(steps)]
    assert max(factors) == 1.0
    assert min(factors) > 0
    rising = math.ceil(steps * warmup)
    assert factors[:rising] == sorted(factors[:rising])
    assert factors[rising:] == sorted(factors[rising:], reverse=True)


def test_the_loss_falls_and_every_step_is_on_record(undisturbed: Trained) -> None:
    assert [step.step for step in undisturbed.steps] == list(range(1, STEPS + 1))
    assert planned_steps(19, CONFIG) == STEPS
    # Uniform over 320 ids to nearly uniform over the 40 that occur.
    assert undisturbed.steps[0].loss == pytest.approx(math.log(320), abs=0.1)
    assert undisturbed.steps[-1].loss < undisturbed.steps[0].loss - 0.5
    rates = [step.learning_rate / CONFIG.learning_rate for step in undisturbed.steps]
    assert rates == pytest.approx([rate_factor(step, STEPS, CONFIG.warmup) for step in range(STEPS)])
    assert (undisturbed.samples, undisturbed.tokens, undisturbed.resumed_from) == (19, 2 * 19 * LENGTH, 0)


def test_the_next_policy_is_complete_extended_and_free_of_pickle(parent: Path, undisturbed: Trained) -> None:
    policy = load_policy(undisturbed.folder, device="cpu")
    assert (policy.digest, policy.context) == (undisturbed.digest, 128)
    assert policy.digest != policy_digest(parent)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (undisturbed.folder / name).read_bytes() == (parent / name).read_bytes()
    assert {path.suffix for path in undisturbed.folder.iterdir()} == {".json", ".safetensors"}
    before, after = (
        json.loads((parent / "config.json").read_text()),
        json.loads((undisturbed.folder / "config.json").read_text()),
    )
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed == {"max_position_embeddings", "rope_parameters"}


def test_the_same_inputs_give_the_same_weights_and_another_order_does_not(
    parent: Path, samples: Path, undisturbed: Trained, tmp_path: Path
) -> None:
    assert train(parent, [samples], tmp_path / "again", CONFIG).digest == undisturbed.digest
    recomputed = CONFIG.model_copy(update={"gradient_checkpointing": True})
    assert train(parent, [samples], tmp_path / "recomputed", recomputed).digest == undisturbed.digest
    shuffled = CONFIG.model_copy(update={"data_seed": 1})
    assert train(parent, [samples], tmp_path / "shuffled", shuffled).digest != undisturbed.digest


KILLED = """
import os, signal, sys
from pathlib import Path
from models.training import TrainingConfig, train

def die(step, steps, loss):
    if step == 8:
        os.kill(os.getpid(), signal.SIGKILL)

parent, samples, work, config = sys.argv[1:]
train(Path(parent), [Path(samples)], Path(work), TrainingConfig.model_validate_json(config), on_step=die)
"""


def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(
    parent: Path, samples: Path, undisturbed: Trained, tmp_path: Path
) -> None:
    arguments = [str(parent), str(samples), str(tmp_path / "work"), CONFIG.model_dump_json()]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -signal.SIGKILL
    damaged = Path(shutil.copytree(tmp_path / "work", tmp_path / "damaged"))
    unsealed = Path(shutil.copytree(tmp_path / "work", tmp_path / "unsealed"))

    resumed = train(parent, [samples], tmp_path / "work", CONFIG)
    assert (resumed.resumed_from, resumed.digest) == (6, undisturbed.digest)
    assert [step.loss for step in resumed.steps] == [step.loss for step in undisturbed.steps]

    state = damaged / "checkpoints/checkpoint-6/optimizer.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    resumed = train(parent, [samples], damaged, CONFIG)
    assert (resumed.resumed_from, resumed.digest) == (3, undisturbed.digest)

    for listing in unsealed.rglob("listing.json"):
        listing.unlink()
    resumed = train(parent, [samples], unsealed, CONFIG)
    assert (resumed.resumed_from, resumed.digest) == (0, undisturbed.digest)


def test_weights_keep_the_parent_s_type_unless_told_otherwise(parent: Path, samples: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    policy = load_policy(parent, device="cpu", dtype="bfloat16")
    policy.model.save_pretrained(half)
    policy.tokenizer.save_pretrained(half)
    config = CONFIG.model_copy(update={"bf16": True, "max_steps": 2})
    kept = train(half, [samples], tmp_path / "kept", config)
    assert load_config(kept.folder).dtype == torch.bfloat16
    wide = train(half, [samples], tmp_path / "wide", config.model_copy(update={"save_dtype": "float32"}))
    assert load_config(wide.folder).dtype == torch.float32


def test_a_loss_that_becomes_nan_ends_the_run_at_its_step(parent: Path, samples: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"learning_rate": 1e36})
    with pytest.raises(PolicyError, match=r"training loss is nan at step 2 of 10"):
        train(parent, [samples], tmp_path / "work", config)


def test_a_full_disk_is_one_clear_line_and_the_same_call_carries_on(
    parent: Path, samples: Path, undisturbed: Trained, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(ResourceError, match="disk is full"):
            train(parent, [samples], tmp_path / "work", CONFIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert train(parent, [samples], tmp_path / "work", CONFIG).digest == undisturbed.digest


def test_samples_that_do_not_fit_the_model_are_refused_before_the_first_step(parent: Path, tmp_path: Path) -> None:
    work = (tmp_path / f"work-{number}" for number in itertools.count())
    with pytest.raises(InputError, match="no samples"):
        train(parent, [], next(work), CONFIG)
    with pytest.raises(InputError, match="no samples"):
        train(parent, [_samples(tmp_path / "empty.parquet", rows=0)], next(work), CONFIG)
    with pytest.raises(IntegrityError, match="the policy's vocabulary has 320"):
        train(parent, [_samples(tmp_path / "ids.parquet", top=5000)], next(work), CONFIG)
    with pytest.raises(ConfigError, match="up to 200 tokens, the policy will reach 128"):
        train(parent, [_samples(tmp_path / "long.parquet", length=200)], next(work), CONFIG)
    unequal = [_samples(tmp_path / "a.parquet", length=64), _samples(tmp_path / "b.parquet", length=65)]
    with pytest.raises(ConfigError, match="64 to 65 tokens can't share a batch of 2"):
        train(parent, unequal, next(work), CONFIG)
    alone = CONFIG.model_copy(update={"batch": 1, "max_steps": 1})
    assert train(parent, unequal, next(work), alone).samples == 38
