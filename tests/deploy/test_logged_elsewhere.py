"""A training that was logged through an installation's server is audited without it, whatever its address was."""

from __future__ import annotations

from pathlib import Path

from storage.files import read_json, write_json
from tasks.audit.campaign import audit_campaign
from tasks.audit.trainings import log_digest
from tasks.training.run import TrainingResult
from tests.finished_campaign import NAME, finished_campaign

SERVER = "http://127.0.0.1:5000"


def test_a_training_logged_through_a_server_that_is_gone_passes_and_another_address_is_named(tmp_path: Path) -> None:
    home = finished_campaign(tmp_path / "home")
    results = [
        TrainingResult.model_validate(read_json(path)["result"]) for path in (home / "checkpoints/train").glob("*.json")
    ]
    for path in list((home / "checkpoints/log-training").glob("*.json")):
        said = read_json(path)
        (result,) = [result for result in results if result.policy.startswith(said["policy"])]
        path.unlink()
        write_json(path.with_stem(log_digest(SERVER, NAME, result)), {**said, "store": SERVER})
    assert audit_campaign(home, NAME).failures == []
    path = next((home / "checkpoints/log-training").glob("*.json"))
    write_json(path, {**read_json(path), "store": f"{SERVER}1"})
    (finding,) = [finding for finding in audit_campaign(home, NAME).failures if path.name in finding.line]
    assert "its digest is not the one" in finding.line


def test_a_record_that_names_another_store_than_its_own_is_named(tmp_path: Path) -> None:
    home = finished_campaign(tmp_path / "home")
    path = next((home / "checkpoints/log-training").glob("*.json"))
    write_json(path, {**read_json(path), "store": "sqlite:////elsewhere/mlflow.db"})
    (finding,) = [finding for finding in audit_campaign(home, NAME).failures if path.name in finding.line]
    assert "the record is named for another" in finding.line
