"""The hand-over: only an intact version and its own policy are trained, and what comes back has to fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.policy import quiet_transformers
from models.policy_files import policy_listing
from storage.digests import digest_listing
from storage.errors import InputError, IntegrityError, PolicyError
from storage.home import Home
from storage.policies import policy_folder, policy_record
from storage.versions import version_uri
from tasks.training.handoff import add_base_policy, add_external_policy, hand_off, policy_trained_on
from tests.rounds import BuiltRound, build_round
from tests.tiny_policies import tiny_policy, tiny_tokenizer


@pytest.fixture
def parent(home: Home, tmp_path: Path) -> str:
    return add_base_policy(home, tiny_policy(tmp_path / "parent")).digest


@pytest.fixture
def built(home: Home, parent: str) -> BuiltRound:
    return build_round(home, policy=parent)


def _trained_elsewhere(parent: Path, folder: Path, *, change: float = 0.01) -> Path:
    shutil.copytree(parent, folder, ignore=shutil.ignore_patterns("policy.json"))
    weights = {name: tensor + change for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_an_intact_version_is_handed_to_its_own_policy(home: Home, parent: str, built: BuiltRound) -> None:
    for name in (built.version, built.version[:8]):
        hand = hand_off(home, name, parent[:10])
        assert (hand.version, hand.policy, hand.folder) == (built.version, parent, policy_folder(home, parent))
    assert [path.name for path in hand.samples] == ["samples-00000.parquet"]
    assert (hand.rows, hand.manifest) == (1, built.manifest)


def test_one_flipped_bit_in_any_file_of_the_version_stops_training(home: Home, parent: str, built: BuiltRound) -> None:
    folder = home / version_uri(built.version)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        before = path.read_bytes()
        path.unlink()  # the version's files may be links to the step outputs
        path.write_bytes(bytes([before[0] ^ 1]) + before[1:])
        with pytest.raises(IntegrityError) as caught:
            hand_off(home, built.version, parent)
        assert path.name in str(caught.value)
        path.write_bytes(before)
    hand_off(home, built.version, parent)


def test_a_version_of_another_policy_is_refused(home: Home, built: BuiltRound, tmp_path: Path) -> None:
    other = add_base_policy(home, tiny_policy(tmp_path / "other", seed=1)).digest
    with pytest.raises(PolicyError, match=f"was built with policy {built.manifest.policy[:12]}, not with {other[:12]}"):
        hand_off(home, built.version, other)
    with pytest.raises(PolicyError, match="not registered"):
        hand_off(home, built.version, "f" * 64)
    with pytest.raises(InputError):
        hand_off(home, "0" * 64, other)


def test_a_policy_whose_weights_changed_on_disk_is_not_trained(home: Home, parent: str, built: BuiltRound) -> None:
    weights = policy_folder(home, parent) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"model\.safetensors was changed"):
        hand_off(home, built.version, parent)


def test_a_checkpoint_trained_elsewhere_comes_back_into_the_chain(
    home: Home, parent: str, built: BuiltRound, tmp_path: Path
) -> None:
    assert policy_trained_on(home, built.version, parent) is None
    folder = _trained_elsewhere(policy_folder(home, parent), tmp_path / "elsewhere")
    for _ in range(2):
        record = add_external_policy(home, folder, built.version[:10])
    assert (record.parent, record.trained_on, record.round) == (parent, built.version, 1)
    assert record.digest == digest_listing(policy_listing(folder))
    assert policy_trained_on(home, built.version, parent) == record.digest
    second = _trained_elsewhere(policy_folder(home, parent), tmp_path / "second", change=0.02)
    add_external_policy(home, second, built.version)
    with pytest.raises(PolicyError, match="2 policies were trained on"):
        policy_trained_on(home, built.version, parent)


def test_a_saved_again_tokenizer_is_the_same_tokenizer(
    home: Home, parent: str, built: BuiltRound, tmp_path: Path
) -> None:
    folder = _trained_elsewhere(policy_folder(home, parent), tmp_path / "elsewhere")
    whole = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(whole, indent=1, sort_keys=True))
    assert add_external_policy(home, folder, built.version).trained_on == built.version


def test_a_checkpoint_that_does_not_fit_is_refused(home: Home, parent: str, built: BuiltRound, tmp_path: Path) -> None:
    original = policy_folder(home, parent)
    with pytest.raises(PolicyError, match="itself"):
        add_external_policy(home, original, built.version)
    with pytest.raises(PolicyError, match="num_hidden_layers 3, its parent has 2"):
        add_external_policy(home, tiny_policy(tmp_path / "deep", num_hidden_layers=3), built.version)
    with pytest.raises(PolicyError, match="model_type llama, its parent has qwen2"):
        add_external_policy(home, tiny_policy(tmp_path / "llama", "llama"), built.version)
    foreign = _trained_elsewhere(original, tmp_path / "foreign")
    with quiet_transformers():
        tiny_tokenizer(280).save_pretrained(foreign)
    with pytest.raises(PolicyError, match=r"tokenizer in \S+ differs from its parent's"):
        add_external_policy(home, foreign, built.version)
    lost = _trained_elsewhere(original, tmp_path / "lost", change=float("nan"))
    with pytest.raises(PolicyError, match="NaN"):
        add_external_policy(home, lost, built.version)
    assert policy_record(home, parent).trained_on is None


def test_a_base_model_that_can_t_be_used_is_not_registered(home: Home, tmp_path: Path) -> None:
    folder = tiny_policy(tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][:] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PolicyError, match=r"model\.norm\.weight"):
        add_base_policy(home, folder)
    with pytest.raises(PolicyError, match="not registered"):
        policy_record(home, digest_listing(policy_listing(folder)))
