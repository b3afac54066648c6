"""The check of a standing installation in short: up, a campaign from the form, both servers, down, nothing left.

Its Prefect server asks for a password, credentials are planted in the environment and hostile titles in the corpus:
what is in the home afterwards shows where they went.
"""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

import tests.world
from deploy.checks import standing
from deploy.checks.standing import Claim
from storage.campaigns import load_campaign
from storage.home import Home
from tests.deploy.standing_world import NAME, write_world
from tests.mlflow_home import tracked
from tests.planted import HOSTILE, SECRETS, WORD, files_with

Stood = tuple[Home, list[Claim]]


@pytest.fixture(scope="module")
def stood(tmp_path_factory: pytest.TempPathFactory) -> Stood:
    """A home after an installation stood in it, and what the check claims of it."""
    folder = tmp_path_factory.mktemp("standing")
    home = Home.open(folder / "home")
    tracked(home)
    texts = tests.world._texts

    def hostile(documents: int, seed: int) -> Any:
        rows, chunks = texts(documents, seed)
        return [row | {"title": f"{row['title']} {HOSTILE}"} for row in rows], chunks

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PREFECT_HOME", raising=False)
        patch.setattr(tests.world, "_texts", hostile)
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        parameters = {"preset_file": str(write_world(home, folder)), "hand_off": "deployment"}
        ports = ["--prefect-port", free_port(), "--mlflow-port", free_port()]
        return home, list(standing.check(home.path, parameters, ports, approve=False))


def test_a_campaign_from_the_form_is_seen_in_both_servers_and_leaves_no_process(stood: Stood) -> None:
    home, claims = stood
    assert all(claim.holds for claim in claims), claims
    assert {"no process is left", "MLflow shows the training 1"} <= {claim.claim for claim in claims}
    assert load_campaign(home).name == NAME


def test_every_port_of_an_installation_is_on_loopback(stood: Stood) -> None:
    (claim,) = [claim for claim in stood[1] if claim.claim.startswith("every port")]
    assert claim.holds
    assert claim.claim.count("127.0.0.1:") >= 2, "both servers were seen"


def test_no_credential_is_in_any_file_of_a_home_that_an_installation_stood_in(stood: Stood) -> None:
    home, _ = stood
    assert files_with(home.path) == {}
    marked = home / "standing/planted"
    marked.write_text(f"… {WORD} …")
    assert files_with(home.path) == {"standing/planted": WORD}, "it would be found"
    marked.unlink()


def test_no_title_of_a_corpus_reaches_prefect_or_mlflow(stood: Stood) -> None:
    home, _ = stood
    pieces = [piece for piece in HOSTILE.split(" ") if "<" in piece or "[" in piece]
    assert len(pieces) >= 3
    for folder in ("prefect", "mlflow", "standing", "campaigns"):
        assert files_with(home / folder, pieces) == {}, folder


def test_results_that_prefect_keeps_are_json(stood: Stood) -> None:
    home, _ = stood
    kept = [path for path in (home / "prefect/storage").rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        assert json.loads(path.read_bytes())["metadata"]["serializer"]["type"] == "json", path.name


def free_port() -> str:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
