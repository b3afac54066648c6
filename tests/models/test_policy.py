"""Loading policies: every family, the digest that names them, one clear line for every way a checkpoint is broken."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from models.policy import load_policy, load_tokenizer, policy_digest
from models.policy_files import policy_listing
from storage.errors import PolicyError
from tests.tiny_policies import TEXT, tiny_policy


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("policies") / "qwen2")


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2"])
def test_loads_every_family_with_the_weights_that_were_saved(tmp_path: Path, family: str) -> None:
    folder = tiny_policy(tmp_path / family, family, seed=3)
    policy = load_policy(folder, device="cpu")
    ids = torch.arange(40)[None]
    reference = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert torch.equal(policy.model(ids).logits, reference(ids).logits)
    assert not policy.model.training
    assert (policy.context, policy.vocabulary, policy.dtype) == (64, 320, torch.float32)
    assert policy.parameters == sum({p.data_ptr(): p.numel() for p in reference.parameters()}.values())
    assert load_policy(folder, device="cpu", dtype="bfloat16").model.dtype == torch.bfloat16


def test_digest_is_over_weights_config_and_tokenizer_and_nothing_else(tiny: Path, tmp_path: Path) -> None:
    names = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    listing = {name: hashlib.sha256((tiny / name).read_bytes()).hexdigest() for name in names}
    written = json.dumps(listing, sort_keys=True, separators=(",", ":")).encode()
    assert policy_digest(tiny) == hashlib.sha256(written).hexdigest()

    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    for name in ("README.md", "policy.json", "optimizer.pt", "__init__.py"):
        (copy / name).write_text("beside")
    assert policy_digest(copy) == policy_digest(tiny)
    for name in names:
        before = (copy / name).read_bytes()
        (copy / name).write_bytes(before + b" ")
        assert policy_digest(copy) != policy_digest(tiny), name
        (copy / name).write_bytes(before)
    (copy / "modeling_own.py").write_text("changes = 'what the weights mean'")
    assert policy_digest(copy) != policy_digest(tiny)


def test_a_tokenizer_of_its_own_is_not_replaced_by_its_family_s(tiny: Path) -> None:
    text = TEXT + "x_1 = 12345; café"
    expected = Tokenizer.from_file(str(tiny / "tokenizer.json")).encode(text).ids
    assert load_tokenizer(tiny)(text)["input_ids"] == expected


def _json(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_text(json.dumps(change(json.loads((folder / name).read_text()))))

    return damage


def _cut(name: str, length: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:length])


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return damage


def _set(name: str, value: float) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda weights: weights[name].view(-1)[1].fill_(value)


def _without_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


NORM = "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (shutil.rmtree, "does not exist"),
        (lambda folder: (folder / "config.json").unlink(), r"no config\.json"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            r"found pytorch_model\.bin",
        ),
        (_cut("config.json", 40), "configuration"),
        (lambda folder: (folder / "config.json").write_text("[]"), "configuration"),
        (_json("config.json", lambda c: c | {"model_type": "martian"}), "martian"),
        (_json("config.json", lambda c: c | {"hidden_size": "wide"}), "hidden_size"),
        (_json("config.json", lambda c: c | {"hidden_size": 32}), r"another shape in \d+ tensors"),
        (_json("config.json", lambda c: c | {"vocab_size": 100}), r"embed_tokens"),
        (_json("config.json", lambda c: c | {"auto_map": {"AutoConfig": "own.C"}, "model_type": "own"}), "remote_code"),
        (_cut("model.safetensors", 30), "can't be loaded"),
        (_cut("model.safetensors", 3000), "can't be loaded"),
        (_weights(lambda weights: weights.pop(NORM)), r"lack 1 tensors.*model\.layers\.1\.input_layernorm"),
        (_weights(_set(NORM, float("nan"))), r"model\.layers\.1\.input_layernorm\.weight.*1 values that are NaN"),
        (_weights(_set("model.norm.weight", float("inf"))), r"model\.norm\.weight"),
        (_without_tokenizer, "no tokenizer files"),
        (_cut("tokenizer.json", 300), "tokenizer in .* can't be read"),
        (_cut("tokenizer_config.json", 9), "not valid JSON"),
        (_json("tokenizer.json", lambda t: t | {"pre_tokenizer": "Magic"}), "tokenizer in .* can't be read"),
    ],
)
def test_a_broken_checkpoint_is_one_clear_line(
    tiny: Path, tmp_path: Path, damage: Callable[[Path], object], said: str
) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "broken"))
    damage(folder)
    with pytest.raises(PolicyError, match=said) as caught:
        load_policy(folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_vocabulary_smaller_than_the_tokenizer_s_is_refused(tmp_path: Path) -> None:
    folder = tiny_policy(tmp_path / "small", vocab_size=290)
    with pytest.raises(PolicyError, match="ids up to 299, the model's vocabulary ends at 289"):
        load_policy(folder, device="cpu")


def test_weights_too_large_for_the_chosen_type_are_named(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "large"))
    _weights(_set("model.norm.weight", 1e6))(folder)
    load_policy(folder, device="cpu", dtype="float32")
    with pytest.raises(PolicyError, match=r"model\.norm\.weight .*float16"):
        load_policy(folder, device="cpu", dtype="float16")


def test_another_digest_or_device_than_asked_for_is_refused(tiny: Path) -> None:
    listing = policy_listing(tiny)
    assert set(listing) >= {"config.json", "model.safetensors", "tokenizer.json"}
    with pytest.raises(PolicyError, match="expected 000000000000"):
        load_policy(tiny, device="cpu", digest="0" * 64)
    with pytest.raises(PolicyError, match="not a device"):
        load_policy(tiny, device="abacus")
