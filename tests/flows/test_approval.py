"""Approval and hand-over: refused where nothing stands, asked about once, handed over once, no part of a version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows import approval, handing_over
from flows.campaign import campaign, campaign_identity
from flows.deploying import deploy_all
from flows.presets import Preset
from storage.campaigns import list_campaigns
from storage.errors import ConfigError, StoppedError
from storage.home import Home
from tests.campaigns import TRAINING, small_preset
from tests.world import make_world

VERSION = "a" * 64


@pytest.fixture
def preset(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Preset:
    return small_preset(make_world(home, tmp_path, monkeypatch), "trial", recipe="standard", tokens=256, rounds=1)


def with_options(preset: Preset, **changes: Any) -> Preset:
    return preset.model_copy(update={"campaign": preset.campaign.model_copy(update=changes)})


def test_where_and_with_whom_it_is_trained_is_no_part_of_a_campaign(preset: Preset) -> None:
    elsewhere = with_options(preset, approve=True, hand_off="deployment")
    assert campaign_identity(elsewhere) == campaign_identity(preset)
    assert "hand_off" not in campaign_identity(preset)["campaign"]


@pytest.mark.usefixtures("prefect_server")
def test_without_a_standing_installation_both_are_errors_before_any_work(home: Home, preset: Preset) -> None:
    with pytest.raises(ConfigError, match=r"campaign\.approve waits for a person") as error:
        campaign(str(home.path), with_options(preset, approve=True))
    assert "policylong up" in error.value.hint
    _undeploy()
    with pytest.raises(ConfigError, match="no deployment train/train") as error:
        campaign(str(home.path), with_options(preset, hand_off="deployment"))
    assert "policylong up" in error.value.hint
    assert not list_campaigns(home)
    assert not (home / "versions").exists()


def _undeploy() -> None:
    """Another test may have deployed to the session's server."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import DeploymentSort

    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments(limit=200, sort=DeploymentSort.NAME_ASC):
            client.delete_deployment(deployment.id)


def test_a_version_is_asked_about_until_somebody_says_yes(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def suspend(wait_for_input: type[approval.Approval], **options: Any) -> approval.Approval:
        asked.append({**options, "text": wait_for_input._description})
        return wait_for_input(carry_on=len(asked) > 1, remark="looked at")

    monkeypatch.setattr(approval, "suspend_flow_run", suspend)
    with pytest.raises(StoppedError, match="was not approved: looked at"):
        approval.approve(home, "trial", 1, VERSION, "# Round 1")
    for _ in range(2):
        approval.approve(home, "trial", 1, VERSION, "# Round 1")
    assert len(asked) == 2
    assert asked[0]["key"] == asked[1]["key"]
    assert asked[0]["timeout"] is None
    assert "# Round 1" in asked[0]["text"]
    assert not list_campaigns(home)


@pytest.mark.usefixtures("prefect_server")
def test_a_version_is_handed_over_once_and_never_to_the_training_of_another_configuration() -> None:
    deploy_all()
    handing_over.check_train_deployment()

    def handed(rate: float) -> Any:
        config = TRAINING.model_copy(update={"learning_rate": rate}).model_dump(mode="json")
        parameters = {"version": VERSION, "policy": "b" * 64, "config": config, "label": "trial round 1"}
        return handing_over._run_of(VERSION, f"{rate}", {**parameters, "campaign": "trial"}, "trial round 1")

    first, other = handed(0.001), handed(0.002)
    assert first.idempotency_key == VERSION
    assert first.name == "train trial round 1"
    assert handed(0.001).id == first.id
    assert other.id != first.id
    assert handed(0.002).id == other.id
    deploy_all(version="9.9")
    with pytest.raises(ConfigError, match=r"is of policylong 9\.9"):
        handing_over.check_train_deployment()
    deploy_all()
