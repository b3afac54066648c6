"""The training flow in Prefect: from a published version to a registered policy, with its report, and again at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.client.orchestration import get_client

from flows.evaluate import evaluate_policy
from flows.train import train_round
from models.extension import ExtensionConfig
from models.training import TrainingConfig
from storage.errors import IntegrityError, PolicyError
from storage.home import Home
from storage.policies import policy_record
from storage.versions import version_uri
from tasks.measurements.context_gain import ContextGainConfig
from tasks.training.handoff import add_base_policy
from tests.mlflow_home import tracked
from tests.rounds import build_round, make_corpus
from tests.tiny_policies import tiny_policy

CONFIG = TrainingConfig(
    extension=ExtensionConfig(context=256), accumulation=1, max_steps=2, bf16=False, device="cpu", threads=1
)


def _report() -> str:
    """The newest artifact ``training-report``."""
    wanted = {"artifacts": {"key": {"any_": ["training-report"]}}, "limit": 1, "sort": "UPDATED_DESC"}
    with get_client(sync_client=True) as client:
        (artifact,) = client.request("POST", "/artifacts/filter", json=wanted).json()  # type: ignore[arg-type]
    return str(artifact["data"])


@pytest.mark.usefixtures("prefect_server")
def test_a_version_becomes_the_next_policy_with_a_report(home: Home, tmp_path: Path) -> None:
    tracking = tracked(home)
    parent = add_base_policy(home, tiny_policy(tmp_path / "parent")).digest
    version = build_round(home, policy=parent).version

    first = train_round(str(home.path), version, parent, CONFIG, label="demo round 1", campaign="demo")
    record = policy_record(home, first["policy"])
    assert (record.parent, record.trained_on, record.round) == (parent, version, 1)
    assert tracking.current("demo") == first["policy"]
    assert f"| Next policy | `{first['policy'][:12]}` |" in _report()

    again = train_round(str(home.path), version, parent, CONFIG, label="demo round 1", campaign="demo")
    assert again == first
    journal = (home / "journal.jsonl").read_text()
    assert journal.count('"event": "started", "step": "train"') == 1

    gain = evaluate_policy(
        str(home.path), first["policy"], make_corpus(home), ContextGainConfig(long=32, short=8, targets=4, windows=2)
    )
    assert gain["policy"] == first["policy"]
    assert gain["windows"] == 2
    assert gain["gain"] == pytest.approx(gain["loss_short"] - gain["loss_long"])


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_refuses_a_damaged_version_and_another_parent(home: Home, tmp_path: Path) -> None:
    parent = add_base_policy(home, tiny_policy(tmp_path / "parent")).digest
    other = add_base_policy(home, tiny_policy(tmp_path / "other", seed=1)).digest
    version = build_round(home, policy=parent).version
    with pytest.raises(PolicyError, match="off-policy"):
        train_round(str(home.path), version, other, CONFIG, label="wrong parent")
    card = home / version_uri(version) / "README.md"
    card.unlink()
    card.write_text("# Another card\n")
    with pytest.raises(IntegrityError, match=r"README\.md"):
        train_round(str(home.path), version, parent, CONFIG, label="damaged")
