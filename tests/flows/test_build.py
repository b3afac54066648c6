"""A round as the build flow makes it: the same version in every home and after damage, nothing done twice,
audit-proof.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from flows.build import BuildInputs, build_round
from storage.campaigns import load_campaign, start_campaign
from storage.errors import ConfigError
from storage.findings import failures
from storage.home import Home
from storage.versions import load_manifest, verify_version, version_uri
from tasks.audit.checks import audit_version
from tasks.checkpointed import tally
from tasks.engines.engine import EngineConfig
from tasks.resources import release
from tests.world import World, make_world

pytestmark = pytest.mark.usefixtures("prefect_server")


def build(world: World, number: int = 1, parent: str | None = None, engine: EngineConfig | None = None) -> str:
    start_campaign(world.home, "trial", {"name": "trial"})
    inputs = BuildInputs(
        campaign="trial",
        round=number,
        corpus="world",
        policy=world.policy,
        previous_version=parent,
        engine=engine or EngineConfig(),
    )
    version = build_round(str(world.home.path), inputs, world.config)
    release()
    return version


def events(home: Home, event: str) -> list[str]:
    lines = (home / "journal.jsonl").read_text().splitlines()
    return [line["key"] for line in map(json.loads, lines) if line["event"] == event]


def test_a_round_is_published_once_and_repaired_where_it_was_damaged(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(home, tmp_path / "scratch", monkeypatch)
    version = build(world)
    assert not failures(verify_version(home, version))
    manifest = load_manifest(home, version)
    assert manifest.funnel["samples"] > 0
    assert manifest.funnel["roots"] == 9
    assert load_campaign(home, "trial").find(1) is not None
    report = audit_version(home, version)
    assert report.exit_code == 0, [finding.line for finding in report.findings if finding.status == "failed"]

    finished = len(events(home, "finished"))
    tally.clear()
    assert build(world) == version
    assert tally["computed"] == 0
    assert tally["found"] == finished
    assert len(events(home, "finished")) == finished

    damaged = home / next(iter(sorted(home.path.glob("work/verification/*.parquet")))).relative_to(home.path)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.unlink()
    damaged.write_bytes(bytes(data))
    assert build(world) == version
    assert Counter(events(home, "finished")).most_common(1)[0][1] == 2, "only the damaged step runs again"
    assert len(events(home, "finished")) == finished + 1
    assert len(events(home, "distrusted")) == 1


def test_two_homes_agree_and_rounds_differ(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(home, tmp_path / "scratch", monkeypatch)
    first = build(world)
    other = make_world(Home.open(tmp_path / "elsewhere"), tmp_path / "scratch-2", monkeypatch)
    assert build(other, engine=EngineConfig(overlap=True)) == first, "retrieval beside scoring changes nothing"
    second = build(world, 2, parent=first)
    one, two = load_manifest(home, first), load_manifest(home, second)
    assert second != first
    assert two.previous_version == first
    assert two.figures["probe_overlap_positions"] == pytest.approx(1.0), (
        "the same policy is uncertain at the same places"
    )
    assert two.figures["probe_overlap_positives"] == pytest.approx(1.0)
    assert "probe_overlap_positions" not in one.figures
    text = (home / version_uri(first) / "manifest.json").read_text()
    assert str(home.path) not in text


def test_what_does_not_fit_is_refused_before_any_work(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(home, tmp_path / "scratch", monkeypatch)
    start_campaign(home, "trial", {"name": "trial"})
    inputs = BuildInputs(campaign="trial", round=1, corpus="world", policy=world.policy)
    tight = world.config.model_copy(update={"screening_tokens": 50})
    with pytest.raises(ConfigError, match="screening context is 50"):
        build_round(str(home.path), inputs, tight)
    with pytest.raises(ConfigError, match="unknown recipe"):
        build_round(str(home.path), inputs, world.config.model_copy(update={"recipe": "alchemy"}))
    assert not (home / "work/entropy").exists()
