"""Deploying: every flow with its form, and nothing that was changed in Prefect's pages is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.deploying import FILE, chosen_pools, deploy_all, read_deployments
from flows.deployments import chosen, deployed_home, only_services_again
from flows.standing.versions import own_version
from storage.errors import ConfigError, ServiceError
from storage.home import Home


def test_the_file_deploys_the_six_flows_and_the_schedule_is_off() -> None:
    file = read_deployments()
    assert {deployment.name for deployment in file.deployments} == {
        "ingest",
        "build",
        "train",
        "evaluate",
        "campaign",
        "audit",
    }
    assert {deployment.version for deployment in file.deployments} == {own_version()}
    (nightly,) = next(deployment.schedules for deployment in file.deployments if deployment.name == "campaign")
    assert not nightly.active
    assert file.pools == ("policylong-cpu", "policylong-train")
    assert chosen_pools([]) == file.pools
    with pytest.raises(ConfigError, match="no work pool 'gpu'"):
        chosen_pools(["gpu"])
    assert "deployments" in yaml.safe_load(FILE.read_text())


@pytest.mark.usefixtures("prefect_server")
def test_deploying_anew_keeps_what_was_changed_in_the_pages() -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentUpdate

    assert deploy_all() == [f"{name}/{name}" for name in ("ingest", "build", "train", "evaluate", "campaign", "audit")]
    with get_client(sync_client=True) as client:
        made = client.read_deployment_by_name("campaign/campaign")
        form = made.parameter_openapi_schema["properties"]
        assert "quickstart-small" in form["preset"]["enum"]
        assert set(form["hand_off"]["enum"]) == {"direct", "deployment"}
        assert form["approve"]["description"].startswith("Wait for a person")
        assert made.global_concurrency_limit is not None
        assert made.global_concurrency_limit.limit == 1
        client.update_deployment(made.id, DeploymentUpdate(parameters={"preset": "books", "gone": 1}))
        client.update_deployment_schedule(made.id, made.schedules[0].id, active=True)
        deploy_all(version="9.9")
        again = client.read_deployment_by_name("campaign/campaign")
    assert again.id == made.id
    assert again.version == "9.9"
    assert again.pull_steps == [{"flows.standing.versions.same_version": {"deployed": "9.9"}}]
    assert again.parameters == {"preset": "books"}
    assert [(schedule.slug, schedule.active) for schedule in again.schedules] == [("nightly", True)]


@pytest.mark.usefixtures("prefect_server")
def test_only_a_service_that_did_not_answer_is_asked_again() -> None:
    from prefect import flow

    tries: list[str] = []

    @flow(retries=2, retry_delay_seconds=0)
    def failing(kind: str) -> None:
        tries.append(kind)
        with only_services_again():
            raise {"service": ServiceError, "config": ConfigError}[kind]("no")

    for kind, error in (("service", ServiceError), ("config", ConfigError)):
        with pytest.raises(error):
            failing(kind)
    assert tries == ["service", "service", "service", "config"]


def test_a_deployed_flow_works_in_the_home_of_its_worker(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home.path)
    monkeypatch.delenv("POLICYLONG_HOME", raising=False)
    with pytest.raises(ConfigError, match="POLICYLONG_HOME is not set"):
        deployed_home()
    monkeypatch.setenv("POLICYLONG_HOME", str(home.path))
    assert deployed_home().path == home.path
    assert Path.cwd() == home.path
    settings = {"campaign__name": "own", "build__rounds": 1, "build__tokens": None}
    wanted = chosen("quickstart-small", None, ["campaign.approve=true"], **settings)
    assert (wanted.campaign.name, wanted.build.rounds, wanted.campaign.approve) == ("own", 1, True)
