"""The registry of policies: what was added is found, what is damaged is brought anew, lineage does not change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import storage.policies
from storage.digests import digest_files, digest_listing
from storage.errors import IntegrityError, PolicyError
from storage.home import Home
from storage.policies import add_policy, damaged_policy_files, list_policies, policy_folder, policy_record


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return _checkpoint(tmp_path / "checkpoint", "weights")


def _checkpoint(folder: Path, weights: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(weights)
    (folder / "optimizer.pt").write_text("pickled")
    return folder


def _files(folder: Path) -> dict[str, str]:
    return digest_files(folder, ["config.json", "model.safetensors"])


def _add(home: Home, folder: Path, **lineage: str | None) -> str:
    files = _files(folder)
    digest = digest_listing(files)
    options = {"parent": None, "trained_on": None} | lineage
    add_policy(home, folder, digest, parent=options["parent"], trained_on=options["trained_on"], round=0, files=files)
    return digest


def test_a_policy_is_copied_once_and_found_by_any_prefix(home: Home, checkpoint: Path) -> None:
    digest = _add(home, checkpoint)
    assert _add(home, checkpoint) == digest
    for prefix in (digest, digest[:16], digest[:5]):
        assert policy_record(home, prefix).digest == digest
    folder = policy_folder(home, digest)
    assert folder == home / f"policies/{digest[:16]}"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "policy.json"]
    assert [record.digest for record in list_policies(home)] == [digest]
    shutil.rmtree(checkpoint)
    assert _files(folder) == policy_record(home, digest).files


def test_without_a_listing_the_folder_s_files_are_taken_but_no_pickles(home: Home, checkpoint: Path) -> None:
    digest = digest_listing(_files(checkpoint))
    record = add_policy(home, checkpoint, digest, parent=None, trained_on=None, round=0)
    assert record.files == _files(checkpoint)


def test_unknown_and_ambiguous_policies_say_what_to_do(home: Home, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"not registered.*policylong policy add"):
        policy_folder(home, "ab12")
    first: dict[str, str] = {}
    for number in range(40):
        digest = _add(home, _checkpoint(tmp_path / str(number), str(number)))
        if digest[0] in first:
            with pytest.raises(PolicyError, match=f"'{digest[0]}' fits 2 policies"):
                policy_record(home, digest[0])
            return
        first[digest[0]] = digest
    pytest.fail("forty digests with sixteen first characters have to collide")


def test_lineage_is_added_once_and_never_changed(home: Home, checkpoint: Path) -> None:
    digest = _add(home, checkpoint)
    _add(home, checkpoint, parent="a" * 64, trained_on="b" * 64)
    assert policy_record(home, digest).trained_on == "b" * 64
    _add(home, checkpoint)
    assert policy_record(home, digest).parent == "a" * 64
    with pytest.raises(PolicyError, match="known as trained from aaaaaaaaaaaa on bbbbbbbbbbbb"):
        _add(home, checkpoint, parent="a" * 64, trained_on="c" * 64)


def test_damaged_files_are_named_and_brought_anew(home: Home, checkpoint: Path) -> None:
    digest = _add(home, checkpoint, parent="a" * 64, trained_on="b" * 64)
    folder = policy_folder(home, digest)
    (folder / "model.safetensors").write_text("weightz")
    (folder / "config.json").unlink()
    named = damaged_policy_files(home, policy_record(home, digest))
    assert ["config.json is missing" in named[0], "model.safetensors was changed" in named[1]] == [True, True]
    _add(home, checkpoint)
    assert damaged_policy_files(home, policy_record(home, digest)) == []
    assert policy_record(home, digest).parent == "a" * 64


def test_a_large_checkpoint_stays_where_it_is(home: Home, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.policies, "COPIED_BYTES", 3)
    digest = _add(home, checkpoint)
    assert policy_folder(home, digest) == checkpoint
    moved = checkpoint.rename(checkpoint.with_name("moved"))
    with pytest.raises(PolicyError, match="does not exist any more"):
        policy_folder(home, digest)
    _add(home, moved)
    assert policy_folder(home, digest) == moved


def test_a_listing_of_another_digest_is_refused(home: Home, checkpoint: Path) -> None:
    with pytest.raises(IntegrityError, match="have digest"):
        add_policy(home, checkpoint, "0" * 64, parent=None, trained_on=None, round=0, files=_files(checkpoint))
    stale = {"config.json": "1" * 64}
    with pytest.raises(IntegrityError, match="changed while it was copied"):
        add_policy(home, checkpoint, digest_listing(stale), parent=None, trained_on=None, round=0, files=stale)
    assert list_policies(home) == []
