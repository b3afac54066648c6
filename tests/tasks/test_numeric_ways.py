"""Packing and kernel: left alone they are in no digest, asked for they reach scorer, keys and manifest."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from models.scoring import Context
from storage.digests import digest_json
from storage.errors import PolicyError
from storage.home import Home
from storage.manifests import NumericEnvironment
from tasks.audit import rescoring
from tasks.checkpointed import identity
from tasks.resources import policy_for, release
from tasks.rounds import building
from tasks.rounds.building import BuildConfig, NumericConfig, policy_inputs
from tests.tiny_policies import tiny_policy
from tests.world import make_world

GPU = NumericEnvironment(device="cuda", dtype="bfloat16", threads=1, packing=True, kernel="triton", versions={})
PLAIN = {"dtype": "float32", "device": "cpu", "threads": 2, "tokens_per_batch": 8192}


def test_left_alone_they_are_in_no_digest(tmp_path: Path) -> None:
    auto = NumericConfig(device="cpu")
    assert auto.model_dump(mode="json") == PLAIN
    assert BuildConfig(numeric=auto).model_dump(mode="json")["numeric"] == PLAIN
    inputs = policy_inputs("d", tmp_path, auto)
    assert identity(inputs) == {"digest": "d", **PLAIN}
    environment = NumericEnvironment(device="cpu", dtype="float32", threads=2, versions={"torch": "2"})
    assert environment.model_dump(mode="json") == {
        "device": "cpu", "dtype": "float32", "threads": 2, "versions": {"torch": "2"},
    }  # fmt: skip
    assert environment.ways == ""


def test_asked_for_they_are_in_every_digest(tmp_path: Path) -> None:
    asked = [NumericConfig(device="cpu", packing=p, kernel=k) for p in ("auto", "on") for k in ("auto", "triton")]  # type: ignore[arg-type]
    documents = [config.model_dump(mode="json") for config in asked]
    assert len({digest_json(document) for document in documents}) == 4
    assert [NumericConfig.model_validate(document) for document in documents] == asked
    inputs = policy_inputs("d", tmp_path, asked[-1])
    assert identity(inputs) == {"digest": "d", **PLAIN, "packing": True, "kernel": "triton"}
    recorded = NumericEnvironment(
        device="cuda", dtype="bfloat16", threads=1, packing=True, kernel="triton", versions={}
    )
    assert NumericEnvironment.model_validate(recorded.model_dump(mode="json")) == recorded
    assert recorded.ways == ", contexts packed, entropies by triton"
    for wrong in ({"packing": "yes"}, {"kernel": "cuda"}):
        with pytest.raises(ValidationError):
            NumericConfig.model_validate(wrong)


def test_auto_is_settled_on_the_machine_that_has_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_policy(tmp_path / "policy")
    asked: list[tuple[Any, ...]] = []

    def packs(device: torch.device, dtype: torch.dtype, family: str) -> bool:
        asked.append((device.type, dtype, family))
        return True

    monkeypatch.setattr(building, "packs_by_itself", packs)
    monkeypatch.setattr(building, "kernel_by_itself", lambda device, dtype: "triton")
    numeric = NumericConfig(device="cuda", dtype="bfloat16")
    far = policy_inputs("d", folder, numeric, elsewhere=True)
    assert (far.packing, far.kernel, asked) == (False, "torch", [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    here = policy_inputs("d", folder, numeric)
    assert (here.packing, here.kernel) == (True, "triton")
    assert asked == [("cuda", torch.bfloat16, "qwen2")]
    off = numeric.model_copy(update={"packing": "off", "kernel": "torch"})
    assert identity(policy_inputs("d", folder, off)).keys() == {"digest", *PLAIN}


def test_a_policy_is_loaded_with_them(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(home, tmp_path, monkeypatch)
    contexts = [Context([1, 5, 9, 3, 7, 2, 8][: 3 + n], [1, 2 + n]) for n in range(4)]
    found = []
    for changes in ({}, {"packing": "on"}, {"kernel": "triton"}):
        inputs = policy_inputs(world.policy, world.folder, world.config.numeric.model_copy(update=changes))
        scores = policy_for(inputs).scorer.score(contexts)
        found.append(torch.cat([score.entropy for score in scores]))
        release()
    assert not torch.equal(found[0], found[2])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=2e-5, rtol=0)
    monkeypatch.setattr("models.kernel_head.find_spec", lambda name: None)
    with pytest.raises(PolicyError, match="the kernel triton can't be used: Triton is not installed") as caught:
        policy_for(policy_inputs(world.policy, world.folder, NumericConfig(device="cpu", kernel="triton")))
    assert caught.value.hint == "Set build.numeric.kernel: torch."


@pytest.mark.parametrize(("device", "expected"), [("cuda", (True, "triton")), ("cpu", (False, "torch"))])
def test_verdicts_are_scored_again_as_they_were_where_that_is_possible(
    device: str, expected: tuple[bool, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescoring, "policy_folder", lambda home, policy: Path("policy"))
    manifest: Any = SimpleNamespace(numeric=GPU, policy="d", config={})
    inputs = rescoring._inputs(Home(Path("home")), manifest, rescoring.Environment(device, 0.25, "said"))
    assert (inputs.packing, inputs.kernel) == expected
