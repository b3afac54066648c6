"""A round whose scoring shards run on a Ray cluster of one CPU: the version is that of threads."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from flows.build import BuildInputs, build_round
from storage.campaigns import start_campaign
from storage.errors import ConfigError, PolicylongError, ServiceError
from storage.home import Home
from tasks.engines.engine import EngineConfig
from tasks.resources import release
from tests.world import World, make_world

pytestmark = pytest.mark.usefixtures("prefect_server")


def build(world: World, engine: EngineConfig) -> str:
    start_campaign(world.home, "trial", {"name": "trial"})
    inputs = BuildInputs(campaign="trial", round=1, corpus="world", policy=world.policy, engine=engine)
    version = build_round(str(world.home.path), inputs, world.config.model_copy(update={"roots_per_shard": 4}))
    release()
    return version


def journal(home: Home, event: str) -> list[str]:
    lines = map(json.loads, (home / "journal.jsonl").read_text().splitlines())
    return [f"{line['step']} {line['key']}" for line in lines if line["event"] == event]


def test_a_round_on_ray_has_the_version_of_threads_and_leaves_no_process(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(home, tmp_path / "scratch", monkeypatch)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    version = build(world, EngineConfig(kind="ray", address="local", cpus=1))
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before
    placed = journal(home, "placed")
    assert {line.split()[0] for line in placed} == {"entropy", "verification"}
    assert len(placed) == len(set(placed)) == 6
    assert len(journal(home, "finished")) == len(set(journal(home, "finished")))
    assert not list((home / "locks").glob("*.mark"))

    other = make_world(Home.open(tmp_path / "elsewhere"), tmp_path / "scratch-2", monkeypatch)
    assert build(other, EngineConfig()) == version
    assert build(world, EngineConfig(kind="ray", address="127.0.0.1:1")) == version, "finished: no cluster is asked"
    assert len(journal(home, "placed")) == 6


@pytest.mark.parametrize(
    ("address", "kind", "said"),
    [
        ("127.0.0.1:1", ServiceError, r"no Ray cluster answers at 127\.0\.0\.1:1: Connection refused"),
        ("ray://10.0.0.1:10001", ConfigError, "that of a Ray client"),
        ("somewhere", ConfigError, "is not the address of a Ray cluster"),
    ],
)
def test_a_cluster_that_can_not_be_used_is_one_line_before_any_shard(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, kind: type[PolicylongError], said: str
) -> None:
    world = make_world(home, tmp_path / "scratch", monkeypatch)
    with pytest.raises(kind, match=said):
        build(world, EngineConfig(kind="ray", address=address))
    assert not list((home / "work").rglob("*verdicts*"))
