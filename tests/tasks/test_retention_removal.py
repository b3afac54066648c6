"""Removal itself: a tombstone before anything goes, any kill explained and finished, nothing outside touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from storage.findings import failures
from storage.home import Home
from storage.tombstones import Tombstone, explained, list_tombstones, tombstone_of
from tasks.audit.checks import audit_version
from tasks.retention import collecting
from tasks.retention.collecting import collect
from tasks.retention.plan import Keep
from tests.retained_home import copied_rounds, files, step, stray_policy, told
from tests.rounds import BuiltRound, build_rounds


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> list[BuiltRound]:
    return build_rounds(Home.open(tmp_path_factory.mktemp("template") / "home"), 2)


@pytest.fixture
def rounds(template: list[BuiltRound], tmp_path: Path) -> list[BuiltRound]:
    """Two rounds of campaign ``world`` in a home of their own; policies 1 (base) → 2 → 3."""
    return copied_rounds(template, tmp_path / "home")


@pytest.mark.parametrize("kill", [1, 3, 4, 15])
def test_a_killed_removal_is_explained_and_the_next_one_finishes_it(
    rounds: list[BuiltRound], monkeypatch: pytest.MonkeyPatch, kill: int
) -> None:
    home = rounds[0].home
    step(home, "first")
    stray_policy(rounds[0])
    keep = Keep(rounds=1, versions=True, unfinished=True)
    before, wanted = files(home), collect(home, keep)
    unlink, left = Path.unlink, kill

    def killed(path: Path, missing_ok: bool = False) -> None:
        nonlocal left
        if not path.is_relative_to(home / "tombstones") and not path.name.endswith(".tmp"):
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        collect(home, keep, apply=True)
    monkeypatch.undo()
    gone = before.keys() - files(home).keys()
    assert len(gone) == kill
    assert gone <= told(home)
    assert not failures(audit_version(home, rounds[1].version).findings)
    again = collect(home, keep, apply=True)
    assert collect(home, keep).removals == ()
    everything = {name for removal in wanted.removals for name in removal.files}
    assert before.keys() - files(home).keys() == everything == gone | {n for r in again.removals for n in r.files}
    assert everything == told(home)
    recorded = {name: entry.sha256 for stone in list_tombstones(home) for name, entry in stone.files.items()}
    assert all(recorded[name] in (None, before[name]) for name in everything)
    assert not failures(audit_version(home, rounds[1].version).findings)


def test_nothing_is_removed_before_its_tombstone_is_on_disk(
    rounds: list[BuiltRound], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = rounds[0].home
    step(home, "first")

    def full(*_: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr(collecting, "write_tombstone", full)
    before = files(home)
    with pytest.raises(OSError, match="no space"):
        collect(home, Keep(rounds=1, versions=True, unfinished=True), apply=True)
    assert files(home) == before


def test_a_record_that_leads_out_of_the_home_removes_nothing_there(home: Home, tmp_path: Path) -> None:
    victim = tmp_path / "thesis.txt"
    victim.write_text("mine")
    made = step(home, "first")
    record = json.loads((home / made["record"]).read_text())
    record["refs"]["out"]["uri"] = "../thesis.txt"
    (home / made["record"]).write_text(json.dumps(record))
    collect(home, Keep(unfinished=True), apply=True)
    assert victim.read_text() == "mine"
    assert not (home / made["record"]).exists(), "what can't be read is removed"


def test_tombstones_explain_what_is_missing_and_nothing_else(home: Home) -> None:
    from storage.findings import failed, passed
    from storage.tombstones import Removed, write_tombstone

    stone = Tombstone(
        uri="policies/a", kind="policy weights", reason="old", time="2026-01-02T03:04:05+00:00",
        files={"policies/a/x.safetensors": Removed(sha256="0" * 64, bytes=3)},
    )  # fmt: skip
    first = write_tombstone(home, stone)
    assert write_tombstone(home, stone.model_copy(update={"time": "2027-01-01"})) == first
    assert list_tombstones(home) == [stone]
    assert tombstone_of(home, "policies/a/x.safetensors") == tombstone_of(home, "policies/a") == stone
    assert tombstone_of(home, "policies/a/config.json") is None
    assert tombstone_of(home, "policies/b") is None
    home.folder("policies/a")
    assert tombstone_of(home, "policies/a") == stone
    lost = failed("policy", "is missing", "policies/a/x.safetensors")
    assert explained(home, lost).line.endswith("removed by gc on 2026-01-02: old")
    for finding in (passed("policy", "", "policies/a/x.safetensors"), failed("policy", "x"), failed("p", "x", "y")):
        assert explained(home, finding) is finding
    (home / "policies/a/x.safetensors").write_text("back")
    assert tombstone_of(home, "policies/a/x.safetensors") is tombstone_of(home, "policies/a") is None
    assert explained(home, lost) is lost
