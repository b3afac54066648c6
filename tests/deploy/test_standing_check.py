"""The check of a standing installation in short: up, a campaign from the form, both servers, down, nothing left."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from deploy.checks import standing
from storage.campaigns import load_campaign
from storage.home import Home
from tests.deploy.standing_world import NAME, write_world
from tests.mlflow_home import tracked


def test_a_campaign_from_the_form_is_seen_in_both_servers_and_leaves_no_process(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    tracked(home)
    preset = write_world(home, tmp_path)
    claims = list(
        standing.check(
            home.path,
            {"preset_file": str(preset), "hand_off": "deployment"},
            ["--prefect-port", free_port(), "--mlflow-port", free_port()],
            approve=False,
        )
    )
    assert all(claim.holds for claim in claims), claims
    assert {"no process is left", "MLflow shows the training 1"} <= {claim.claim for claim in claims}
    assert load_campaign(home).name == NAME


def free_port() -> str:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
