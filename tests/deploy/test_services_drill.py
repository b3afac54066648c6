"""Services that are away for a while and for good, in short: a Qdrant over HTTP, and what MLflow's calls make of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.drills import services_drill
from deploy.drills.qdrant_peer import QdrantPeer
from storage.errors import ConfigError, ServiceError
from storage.home import Home
from storage.tracked_calls import PATIENCE
from storage.tracking import Tracking
from tests.deploy.disturbed_worlds import failed, small_ground
from tests.deploy.small_search import NEEDS
from tests.http_peer import peer
from tests.standing_fakes import free_port


def test_qdrant_may_be_away_for_a_while_and_for_good_it_is_one_line(tmp_path: Path) -> None:
    ground, service = small_ground(tmp_path), QdrantPeer(tmp_path / "qdrant")
    service.back()
    home = ground.home("Qdrant")
    search = [sys.executable, "-m", "tests.deploy.small_search", str(home), service.address, "1.5"]
    try:
        found = list(services_drill.drill(ground, "Qdrant", service, search, "positions", "finished", 0.3))
    finally:
        service.close()
    assert failed(found) == []
    assert "exit code 4: error: Qdrant at http://127.0.0.1:" in next(v.detail for v in found if "for good" in v.claim)
    assert service.requests > 0
    assert NEEDS == "candidates", "the table after positions"


class Everywhere(dict[str, Any]):
    """One answer, whatever is asked for."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def get(self, path: str, default: Any = None) -> Any:
        return self.answer


def test_an_mlflow_that_comes_back_is_asked_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    asked: list[str] = []

    def late(body: dict[str, Any]) -> Any:
        asked.append("asked")
        return (500, {"error_code": "INTERNAL_ERROR"}) if len(asked) < 2 else (200, {"registered_models": []})

    with peer(Everywhere(late)) as address:
        assert Tracking(home, address).current("world") is None
    assert len(asked) == 2


def test_an_mlflow_that_stays_away_or_refuses_is_one_line(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv(PATIENCE, "0")
    with pytest.raises(ServiceError, match="does not answer") as away:
        Tracking(home, f"http://127.0.0.1:{free_port()}").current("world")
    assert "run the same command again" in away.value.hint
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-secret")
    refusing = Everywhere((401, {"error_code": "UNAUTHENTICATED", "message": "no"}))
    with peer(refusing) as address, pytest.raises(ConfigError, match="refuses the credentials") as refused:
        Tracking(home, address).current("world")
    assert "a-secret" not in str(refused.value)
    refusing = Everywhere((403, "no", "text/html"))
    with peer(refusing) as address, pytest.raises(ConfigError, match="refuses the credentials"):
        Tracking(home, address).current("world")
    monkeypatch.setenv(PATIENCE, "a while")
    with pytest.raises(ConfigError, match="expected seconds"):
        Tracking(home, "http://127.0.0.1:1")
