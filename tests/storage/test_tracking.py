"""MLflow as an index: all may be logged twice, digests come back whole, a store that is away is a clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from storage.errors import ConfigError, ServiceError
from storage.home import Home
from storage.tracking import TrackedDataset, Tracking
from tests.mlflow_home import tracked

VERSION, POLICY, NEXT = "a1" * 32, "b2" * 32, "c3" * 32
DATASET = TrackedDataset("demo-round-1", VERSION, "file:///versions/a1", profile={"samples": 3})


@pytest.fixture
def tracking(home: Home) -> Tracking:
    return tracked(home)


@pytest.fixture
def client(tracking: Tracking) -> MlflowClient:
    return MlflowClient(tracking.uri, tracking.uri)


def test_a_round_logged_twice_is_one_run_with_one_of_everything(
    home: Home, tracking: Tracking, client: MlflowClient, tmp_path: Path
) -> None:
    report = tmp_path / "report.md"
    report.write_text("# Round")
    runs = set()
    for _ in range(2):
        run = tracking.round_run("demo", 1, VERSION, policy=POLICY)
        tracking.log_round(
            run,
            params={"alpha": 2.0, "config": "x" * 7000},
            metrics={"kept": 12, "nothing": float("nan")},
            series={"loss": [(1, 3.0), (2, 2.5)]},
            artifacts=[report],
            dataset=DATASET,
            tags={"policylong.note": "first"},
        )
        runs.add(run)
    (run,) = runs
    found = tracking.find_version(VERSION)
    assert found is not None
    assert (found.run_id, found.experiment, found.status) == (run, "demo", "FINISHED")
    assert found.tags == {
        "policylong.version": VERSION,
        "policylong.policy": POLICY,
        "policylong.kind": "round",
        "policylong.round": "1",
        "policylong.campaign": "demo",
        "policylong.note": "first",
    }
    assert found.datasets == (DATASET,)
    assert found.metrics == {"kept": 12.0, "loss": 2.5}
    assert [(m.step, m.value) for m in client.get_metric_history(run, "loss")] == [(1, 3.0), (2, 2.5)]
    assert len(client.get_metric_history(run, "kept")) == 1
    assert len(found.params["config"]) == 6000
    assert [artifact.path for artifact in client.list_artifacts(run)] == ["report.md"]
    assert found.artifact_uri.startswith((home / "mlflow/artifacts").as_uri())


def test_building_and_training_share_the_dataset(tracking: Tracking, client: MlflowClient) -> None:
    built = tracking.round_run("demo", 1, VERSION, policy=POLICY)
    trained = tracking.training_run("demo", 1, VERSION, policy=POLICY)
    assert built != trained
    tracking.log_round(built, dataset=DATASET)
    consumed = TrackedDataset("demo-round-1", VERSION, "file:///versions/a1", "training", {"samples": 3})
    tracking.log_round(trained, dataset=consumed)
    ones = [client.get_run(run).inputs.dataset_inputs[0].dataset for run in (built, trained)]
    assert (ones[0].name, ones[0].digest) == (ones[1].name, ones[1].digest) == ("demo-round-1", VERSION[:36])
    found = tracking.find_version(VERSION, kind="training")
    assert found is not None
    assert found.datasets == (consumed,)


def test_a_policy_is_registered_once_and_current_moves(tracking: Tracking, tmp_path: Path) -> None:
    run = tracking.training_run("demo", 1, VERSION, policy=POLICY)
    assert tracking.current("demo") is None
    first = tracking.register_policy("demo", tmp_path, run, POLICY)
    second = tracking.register_policy("demo", tmp_path, run, NEXT)
    assert [tracking.register_policy("demo", tmp_path, run, digest) for digest in (POLICY, NEXT)] == [first, second]
    for number, digest in ((first, POLICY), (second, NEXT), (second, NEXT)):
        tracking.set_current("demo", number)
        assert tracking.current("demo") == digest


def test_versions_of_several_campaigns_are_found_and_unknown_ones_are_not(tracking: Tracking) -> None:
    first = tracking.round_run("demo", 1, VERSION, policy=POLICY)
    assert tracking.round_run("other", 1, VERSION, policy=POLICY) != first
    found = tracking.find_version(VERSION)
    assert found is not None
    assert found.run_id == first
    assert tracking.find_version("f" * 64) is None
    assert tracking.find_version(VERSION, kind="training") is None


def test_more_values_than_one_request_takes(tracking: Tracking, client: MlflowClient) -> None:
    run = tracking.round_run("demo", 1, VERSION, policy=POLICY)
    loss = [(step, float(step)) for step in range(2100)]
    tracking.log_round(run, params={f"p{n:03}": n for n in range(230)}, series={"loss": loss})
    assert len(client.get_run(run).data.params) == 230
    assert client.get_run(run).data.metrics["loss"] == 2099.0
    assert len(client.get_metric_history(run, "loss")) == 2100


def test_a_store_that_is_away_or_unknown_is_one_clear_line(home: Home, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer"):
        Tracking(home, "http://127.0.0.1:9", attempts=2).find_version(VERSION)
    with pytest.raises(ConfigError, match="not a tracking URI"):
        Tracking(home, "ftp://example", attempts=1).find_version(VERSION)
    broken = tmp_path / "broken.db"
    broken.write_text(json.dumps({"not": "a database"}) * 200)
    with pytest.raises(ServiceError, match="does not answer"):
        Tracking(home, f"sqlite:///{broken}", attempts=1).find_version(VERSION)


def test_migrations_that_are_killed_leave_nothing_behind(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-migrated database could neither be carried on nor migrated again."""
    import mlflow

    class Killed(BaseException):
        pass

    def killed(self: object, **_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "search_experiments", killed)
        with pytest.raises(Killed):
            Tracking(home).find_version("0" * 64)
    assert not (home / "mlflow/mlflow.db").exists()
    assert Tracking(home).find_version("0" * 64) is None
    assert (home / "mlflow/mlflow.db").exists()
