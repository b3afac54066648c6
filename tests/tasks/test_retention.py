"""What gc removes and leaves: nothing that a kept version needs, each removal behind a tombstone, at any kill."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from models.training_state import seal
from storage.campaigns import RoundRecord, load_campaign, record_round, start_campaign
from storage.checkpoints import StepKey, finished, run_step
from storage.corpora import open_corpus
from storage.errors import BusyError, ConfigError, InputError, IntegrityError, PolicyError
from storage.findings import failures
from storage.home import Home
from storage.policies import check_collected, policy_folder, policy_record
from storage.tombstones import tombstone_of
from storage.versions import list_versions, verify_version, version_uri
from tasks.audit.checks import audit_version
from tasks.retention.collecting import collect
from tasks.retention.plan import Keep
from tests.published_world import publish_world
from tests.retained_home import WEIGHTS, copied_rounds, files, removed, step, stray_policy, told
from tests.rounds import BuiltRound, build_rounds, make_policy
from tests.world import World, make_world


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> list[BuiltRound]:
    return build_rounds(Home.open(tmp_path_factory.mktemp("template") / "home"), 2)


@pytest.fixture
def rounds(template: list[BuiltRound], tmp_path: Path) -> list[BuiltRound]:
    """Two rounds of campaign ``world`` in a home of their own; policies 1 (base) → 2 → 3."""
    return copied_rounds(template, tmp_path / "home")


def named_policies(home: Home) -> list[str]:
    campaign = load_campaign(home, "world")
    return [campaign.rounds[0].policy, *(str(record.next_policy) for record in campaign.rounds)]


def test_a_dry_run_changes_nothing_and_a_home_with_nothing_to_remove_says_so(rounds: list[BuiltRound]) -> None:
    home = rounds[0].home
    before = files(home)
    (home / "work/by-hand/.half.parquet.999999999.tmp").write_bytes(b"half")
    plan = collect(home, Keep())
    assert (home / "work/by-hand/.half.parquet.999999999.tmp").exists()
    assert not (home / "tombstones").exists()
    assert plan.removals
    assert not plan.applied
    collect(home, Keep(), apply=True)
    assert collect(home, Keep()).removals == ()
    assert files(home).keys() <= before.keys()
    assert not failures(audit_version(home, rounds[1].version).findings)


def test_bytes_are_those_that_the_disk_gets_back(rounds: list[BuiltRound]) -> None:
    home = rounds[0].home
    plan = collect(home, Keep(rounds=1, versions=True))
    used = sum({(s.st_ino, s.st_dev): s.st_size for s in _stats(home)}.values())
    collect(home, Keep(rounds=1, versions=True), apply=True)
    stones = sum(path.stat().st_size for path in (home / "tombstones").glob("*"))
    journal = len((home / "journal.jsonl").read_text().splitlines()[-1]) + 1
    left = sum({(s.st_ino, s.st_dev): s.st_size for s in _stats(home)}.values())
    assert used - (left - stones - journal) == plan.bytes
    assert plan.bytes > 0


def _stats(home: Home) -> list[os.stat_result]:
    return [path.stat() for path in home.path.rglob("*") if path.is_file()]


def test_a_policy_that_no_campaign_names_loses_its_weights_and_nothing_else(rounds: list[BuiltRound]) -> None:
    home = rounds[0].home
    stray = stray_policy(rounds[0])
    base = make_policy(home, 8, parent=None, trained_on=None)
    plan = collect(home, Keep(), apply=True)
    uri = f"policies/{stray[:16]}/{WEIGHTS}"
    assert removed(plan, "policy weights") == {uri}
    for digest in (*named_policies(home), base):
        assert (policy_folder(home, digest) / WEIGHTS).exists()
    assert policy_record(home, stray).trained_on == rounds[0].version
    kept = policy_folder(home, stray, weights=False)
    assert (kept / "tokenizer.json").exists()
    told = rf"weights of policy {stray[:12]} were removed by gc on 20.*no kept"
    back = f"policylong policy add PATH --trained-on {rounds[0].version[:12]}"
    for need in (partial(policy_folder, home, stray), partial(check_collected, kept)):
        with pytest.raises(PolicyError, match=told) as caught:
            need()
        assert back in caught.value.hint
    check_collected(policy_folder(home, base))
    stone = tombstone_of(home, uri)
    assert stone is not None
    assert stone.files[uri].sha256 == policy_record(home, stray).files[WEIGHTS]
    report = audit_version(home, rounds[0].version)
    assert not report.failures
    (finding,) = [finding for finding in report.findings if finding.file == uri]
    assert finding.status == "not-checkable"
    assert finding.detail.startswith("removed by gc on 20")


def test_what_is_lost_without_a_tombstone_stays_a_failure(rounds: list[BuiltRound]) -> None:
    home = rounds[0].home
    stray = stray_policy(rounds[0])
    collect(home, Keep(), apply=True)
    (policy_folder(home, stray, weights=False) / "config.json").unlink()
    (policy_folder(home, named_policies(home)[1]) / WEIGHTS).unlink()
    lost = {finding.file for finding in audit_version(home, rounds[0].version).failures}
    assert {f"policies/{stray[:16]}/config.json", f"policies/{named_policies(home)[1][:16]}/{WEIGHTS}"} <= lost
    for path in (home / "tombstones").glob("*.json"):
        path.write_text("{}")
    assert f"policies/{stray[:16]}/{WEIGHTS}" in {f.file for f in audit_version(home, rounds[0].version).failures}


def test_a_chain_is_kept_whole_unless_fewer_rounds_are_asked_for(rounds: list[BuiltRound]) -> None:
    one, two = rounds
    home = one.home
    start_campaign(home, "short", {"campaign": {"rounds": 1}}, current=False)
    record_round(
        home,
        "short",
        RoundRecord(round=2, version=two.version, policy=two.manifest.policy, next_policy=two.manifest.policy),
    )
    assert not removed(collect(home, Keep(campaigns=("world",))), "policy weights")
    plan = collect(home, Keep(campaigns=("short",), versions=True))
    assert not removed(plan, "version")
    _, second, third = named_policies(home)
    assert removed(plan, "policy weights") == {f"policies/{third[:16]}/{WEIGHTS}"}
    plan = collect(home, Keep(campaigns=("world",), rounds=1, versions=True), apply=True)
    assert {name.split("/")[1] for name in removed(plan, "version")} == {one.version[:16]}
    assert list_versions(home) == [two.version]
    assert (policy_folder(home, second) / WEIGHTS).exists()
    report = audit_version(home, two.version)
    assert not report.failures
    (parent,) = [f for f in report.findings if f.check == "parent of round 2"]
    assert (parent.status, parent.file) == ("not-checkable", f"{version_uri(one.version)}/manifest.json")
    assert "removed by gc" in parent.detail
    assert not audit_version(home, "world:1").failures
    with pytest.raises(InputError, match=r"no dataset version begins with .* was removed by gc on 20.* is not kept"):
        audit_version(home, one.version[:9])


def test_a_campaign_that_goes_on_keeps_all_its_rounds(rounds: list[BuiltRound]) -> None:
    home = rounds[0].home
    path = home / "campaigns/world.json"
    path.write_text(path.read_text().replace('"campaign": {', '"build": {"rounds": 9}, "campaign": {'))
    plan = collect(home, Keep(rounds=1, versions=True))
    assert not removed(plan, "version")
    assert "all rounds of campaign world: it is not finished (--unfinished takes it as it is)" in plan.stays
    assert removed(collect(home, Keep(rounds=1, versions=True, unfinished=True)), "version")


def test_what_contradicts_itself_or_can_not_be_known_is_refused(rounds: list[BuiltRound]) -> None:
    home = rounds[0].home
    with pytest.raises(ConfigError, match="--versions"):
        collect(home, Keep(versions=True))
    with pytest.raises(InputError, match="there is no campaign 'nobody'"):
        collect(home, Keep(campaigns=("nobody",)))
    for name in ("build-world-2", "campaign-run-world", "train-0123"):
        with home.lock(name), pytest.raises(BusyError, match=f"while something runs: {name} is held"):
            collect(home, Keep(), apply=True)
    manifest = home / version_uri(rounds[1].version) / "manifest.json"
    data = manifest.read_bytes()
    manifest.unlink()
    manifest.write_bytes(data.replace(b'"lag":0', b'"lag":1'))
    with pytest.raises(IntegrityError):
        collect(home, Keep())


def test_intermediate_tables_go_and_those_of_unfinished_rounds_stay(rounds: list[BuiltRound]) -> None:
    home = rounds[0].home
    published = next(name for name in rounds[0].files if name.startswith("tables/verdicts"))
    first = step(home, "first")
    middle = step(home, "middle", first["ref"].sha256)
    shared = StepKey(step="last", code_version=1, inputs={"deep": [{"x": middle["ref"].sha256}]}, config={})
    source: Any = rounds[0].files[published]
    run_step(home, shared, lambda: {"out": source})
    waiting = step(home, "waiting", middle["ref"].sha256, rows=2)
    half = home / f"work/half/{'0' * 32}-out.parquet"
    half.parent.mkdir()
    half.write_bytes(b"no record names this")
    plan = collect(home, Keep(), apply=True)
    gone = removed(plan, "tables")
    assert gone == {
        first["record"], first["ref"].uri, middle["record"], middle["ref"].uri, half.relative_to(home.path).as_posix(),
    }  # fmt: skip
    assert gone <= told(home)
    assert finished(home, shared) is not None, "what a version shares costs nothing and stays"
    assert finished(home, waiting["key"]) is not None
    assert any("1 steps of rounds or corpora that are not finished" in line for line in plan.stays)
    assert finished(home, first["key"]) is None
    assert step(home, "first")["ref"] == first["ref"]
    plan = collect(home, Keep(unfinished=True), apply=True)
    assert {waiting["record"], waiting["ref"].uri} <= removed(plan, "tables")


def test_what_a_run_of_an_unfinished_campaign_begins_with_stays(rounds: list[BuiltRound]) -> None:
    home = rounds[0].home
    read = step(home, "read")
    corpus = open_corpus(home, rounds[0].manifest.corpus)
    run_step(
        home,
        StepKey(step="separate", code_version=1, inputs={"documents": read["ref"].sha256}, config={}),
        lambda: {"documents": corpus.documents},
    )
    assert removed(collect(home, Keep()), "tables") == {read["record"], read["ref"].uri}
    path = home / "campaigns/world.json"
    path.write_text(path.read_text().replace('"campaign": {', '"build": {"rounds": 9}, "campaign": {'))
    plan = collect(home, Keep())
    assert not removed(plan, "tables")
    assert "1 steps behind a corpus that a run of world asks for (--unfinished removes them)" in plan.stays
    assert removed(collect(home, Keep(unfinished=True)), "tables") == {read["record"], read["ref"].uri}


def test_a_round_after_gc_is_the_same_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk without hard links a version has copies: every table of every step goes, and comes back the same."""

    def no_links(*_: Any, **__: Any) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr("storage.files.os.link", no_links)
    world: World = make_world(Home.open(tmp_path / "home"), tmp_path / "scratch", monkeypatch)
    home = world.home
    version = publish_world(world).version
    tables = {name for name in files(home) if name.startswith("work/") and "/world/" not in name}
    plan = collect(home, Keep(), apply=True)
    assert tables <= removed(plan, "tables")
    assert not tables & files(home).keys()
    assert not any((home / "checkpoints").rglob("*.json"))
    assert not failures(verify_version(home, version))
    shutil.rmtree(home / version_uri(version))
    again = publish_world(world)
    assert again.version == version
    assert not failures(verify_version(home, version))
    assert tables <= files(home).keys()
    assert all(tombstone_of(home, name) is None for name in tables), "a tombstone says nothing about what is there"


def test_checkpoints_of_trainings(home: Home) -> None:
    for step_number in (8, 16, 24):
        folder = home.folder(f"work/train/unfinished/checkpoint-{step_number}")
        (folder / "weights").write_text(str(step_number))
        if step_number < 24:
            seal(folder)
    home.folder("work/train/done0123/checkpoint-8")
    (home / "work/train/done0123/checkpoint-8/weights").write_text("8")
    home.folder("checkpoints/train")
    (home / "checkpoints/train/done0123ff.json").write_text(json.dumps({"result": {}, "seconds": 1}))
    plan = collect(home, Keep(), apply=True)
    kept = {path.parent.name for path in (home / "work/train").rglob("weights")}
    assert kept == {"checkpoint-16", "checkpoint-24"}
    assert not (home / "work/train/done0123").exists()
    assert any("newest checkpoint of training unfinished" in line for line in plan.stays)
    (home / "work/train/unfinished/checkpoint-16/weights").write_text("damaged")
    assert not removed(collect(home, Keep()), "training checkpoint")
    collect(home, Keep(unfinished=True), apply=True)
    assert not (home / "work/train").exists()
