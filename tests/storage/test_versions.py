"""Dataset versions: identity, publication that survives a kill anywhere, verification that names every bad file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.campaigns import RoundRecord, record_round, start_campaign
from storage.errors import InputError, IntegrityError
from storage.findings import failures
from storage.home import Home
from storage.refs import Ref
from storage.schemas import SCREENED
from storage.tables import read_tables
from storage.versions import (
    list_versions,
    load_manifest,
    publish_version,
    resolve_version,
    table_refs,
    verify_version,
    version_uri,
)
from tests.rounds import BuiltRound, build_round


@pytest.fixture
def built(home: Home) -> BuiltRound:
    return build_round(home)


def folder_of(built: BuiltRound) -> Path:
    return built.home / version_uri(built.version)


def own_copies(built: BuiltRound) -> list[Path]:
    """The version's files, each made a file of its own, so that damage stays in the version."""
    paths = sorted(path for path in folder_of(built).rglob("*") if path.is_file())
    for path in paths:
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    return paths


def bad_files(built: BuiltRound) -> set[str]:
    found = failures(verify_version(built.home, built.version))
    return {str(finding.file).removeprefix(f"{version_uri(built.version)}/") for finding in found}


def test_the_version_is_the_sha256_of_the_manifest_file(built: BuiltRound) -> None:
    assert sha256((folder_of(built) / "manifest.json").read_bytes()).hexdigest() == built.version
    assert load_manifest(built.home, built.version) == built.manifest
    assert failures(verify_version(built.home, built.version)) == []


def test_two_homes_give_the_same_version_and_any_content_changes_it(tmp_path: Path) -> None:
    first, second = (build_round(Home.open(tmp_path / name)) for name in ("a", "b"))
    assert first.version == second.version
    other = build_round(Home.open(tmp_path / "c"), change=lambda t: t["negatives"][0][0].update(score=0.7))
    assert other.version != first.version


def test_tables_of_a_version_are_read_through_refs_in_shard_order(built: BuiltRound) -> None:
    refs = table_refs(built.version, built.manifest, "screened")
    assert [ref.rows for ref in refs] == [2, 1]
    assert read_tables(built.home.path, refs, SCREENED)["root"].to_list() == [0, 1, 2]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuiltRound, list[Path]]:
    built = build_round(Home.open(tmp_path_factory.mktemp("damaged") / "home"))
    return built, own_copies(built)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_bit_in_any_file_is_found_and_the_file_named(
    damaged: tuple[BuiltRound, list[Path]], data: st.DataObject
) -> None:
    built, paths = damaged
    path = data.draw(st.sampled_from(paths))
    content = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(flipped)
    try:
        assert path.relative_to(folder_of(built)).as_posix() in bad_files(built)
    finally:
        path.write_bytes(content)
    assert bad_files(built) == set()


def test_truncated_missing_unexpected_and_linked_files_are_named(built: BuiltRound, tmp_path: Path) -> None:
    own_copies(built)
    folder = folder_of(built)
    (folder / "samples/samples-00000.parquet").write_bytes((folder / "samples/samples-00000.parquet").read_bytes()[:-1])
    (folder / "tables/positions-00001.parquet").unlink()
    (folder / "tables/extra.txt").write_text("")
    shutil.move(folder / "config.json", tmp_path / "elsewhere.json")
    (folder / "config.json").symlink_to(tmp_path / "elsewhere.json")
    assert bad_files(built) == {
        "samples/samples-00000.parquet",
        "tables/positions-00001.parquet",
        "tables/extra.txt",
        "config.json",
    }


def test_an_edited_manifest_is_found_even_when_it_is_valid(built: BuiltRound) -> None:
    path = folder_of(built) / "manifest.json"
    path.write_bytes(built.manifest.model_copy(update={"round": 2}).canonical)
    assert bad_files(built) == {"manifest.json"}
    with pytest.raises(IntegrityError, match=r"manifest\.json was changed"):
        load_manifest(built.home, built.version)
    path.write_bytes(built.manifest.canonical + b"\n")
    assert bad_files(built) == {"manifest.json"}
    path.write_bytes(b"{")
    assert bad_files(built) == {"manifest.json"}
    path.unlink()
    assert bad_files(built) == {"manifest.json"}


@pytest.mark.parametrize(
    ("update", "problem"),
    [
        ({"rows": 3}, "has 2 rows, the manifest says 3"),
        ({"table": "verdicts"}, "does not have the columns of table verdicts"),
    ],
)
def test_rows_and_columns_must_be_what_the_manifest_says(
    built: BuiltRound, update: dict[str, Any], problem: str
) -> None:
    name = "tables/screened-00000.parquet"
    entry = built.manifest.files[name].model_copy(update=update)
    manifest = built.manifest.model_copy(update={"files": {**built.manifest.files, name: entry}})
    with pytest.raises(IntegrityError, match=problem):
        publish_version(built.home, manifest, built.files)
    copied = built.home / version_uri(manifest.version)
    shutil.rmtree(copied)
    shutil.copytree(folder_of(built), copied)
    (copied / "manifest.json").write_bytes(manifest.canonical)
    assert [(f.file, f.detail) for f in failures(verify_version(built.home, manifest.version))] == [
        (f"{version_uri(manifest.version)}/{name}", problem)
    ]


def test_publishing_again_leaves_good_files_alone_and_replaces_damaged_ones(built: BuiltRound) -> None:
    paths = own_copies(built)
    before = {path: path.stat().st_ino for path in paths}
    broken = folder_of(built) / "tables/verdicts-00000.parquet"
    broken.write_bytes(b"PAR1")
    (folder_of(built) / "samples/samples-00000.parquet").unlink()
    assert publish_version(built.home, built.manifest, built.files) == built.version
    assert bad_files(built) == set()
    changed = {path.name for path in paths if path.stat().st_ino != before[path]}
    assert changed == {"verdicts-00000.parquet", "samples-00000.parquet"}


def test_a_source_that_is_not_what_the_manifest_says_is_never_published(built: BuiltRound) -> None:
    shutil.rmtree(folder_of(built))
    ref = built.files["tables/verdicts-00000.parquet"]
    assert isinstance(ref, Ref)
    (built.home / ref.uri).write_bytes(b"something else")
    with pytest.raises(IntegrityError, match=r"tables/verdicts-00000\.parquet can't be published"):
        publish_version(built.home, built.manifest, built.files)
    assert not (folder_of(built) / "manifest.json").exists()
    assert list_versions(built.home) == []
    with pytest.raises(IntegrityError, match="differ in: surplus"):
        publish_version(built.home, built.manifest, {**built.files, "surplus": b""})


class Killed(BaseException):
    """Stands for a SIGKILL: no handler of the product's may catch it."""


class Disk:
    """Counts the operations that change the disk; from operation ``limit`` on none happens any more."""

    OPERATIONS = (
        (os, "link"),
        (os, "replace"),
        (os, "fsync"),
        (Path, "mkdir"),
        (Path, "write_bytes"),
        (Path, "unlink"),
    )

    def __init__(self, patch: pytest.MonkeyPatch, limit: int) -> None:
        self.done, self.limit = 0, limit
        for owner, name in self.OPERATIONS:
            patch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            if self.done >= self.limit:
                raise Killed
            self.done += 1
            return real(*args, **kwargs)

        return operation


def kills(built: BuiltRound) -> Iterator[int]:
    """Publishes into an empty folder, killed before the n-th change of the disk, for every n there is."""
    for limit in range(10_000):
        shutil.rmtree(built.home / "versions", ignore_errors=True)
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, limit)
            patch.setattr(os, "getpid", lambda number=limit: 100_000 + number)
            try:
                publish_version(built.home, built.manifest, built.files)
                return
            except Killed:
                pass
        yield limit


def test_a_kill_at_any_operation_leaves_no_round_or_a_whole_one_and_the_next_call_finishes_it(
    built: BuiltRound,
) -> None:
    names = {path.relative_to(built.home.path) for path in folder_of(built).rglob("*")}
    tried = 0
    for tried in kills(built):  # noqa: B007
        if list_versions(built.home):
            assert bad_files(built) <= {path.name for path in folder_of(built).glob(".*.tmp")}
        assert publish_version(built.home, built.manifest, built.files) == built.version
        assert bad_files(built) == set()
        assert {path.relative_to(built.home.path) for path in folder_of(built).rglob("*")} == names
    assert tried > 3 * len(built.files)


def test_versions_are_found_by_prefix_and_by_round(home: Home) -> None:
    first, second = build_round(home, 1), build_round(home, 2)
    assert list_versions(home) == sorted([first.version, second.version])
    assert resolve_version(home, first.version[:6]) == first.version
    assert resolve_version(home, first.version.upper()) == first.version
    start_campaign(home, "world", {})
    for number, built in enumerate((first, second), 1):
        record_round(home, "world", RoundRecord(round=number, version=built.version, policy="d" * 64))
    assert resolve_version(home, "2") == second.version
    assert resolve_version(home, "world:1") == first.version
    assert load_manifest(home, "1") == first.manifest


def test_what_can_not_be_resolved_is_one_clear_line(home: Home) -> None:
    built = build_round(home)
    with pytest.raises(InputError, match="no campaign"):
        resolve_version(home, "1")
    with pytest.raises(InputError, match="no dataset version begins with ffff"):
        resolve_version(home, "ffff")
    with pytest.raises(InputError, match="neither a round number nor"):
        resolve_version(home, "latest")
    twin = home / f"versions/{built.version[:8]}00000000"
    twin.mkdir()
    (twin / "manifest.json").write_bytes(b"{}")
    with pytest.raises(InputError, match="ambiguous"):
        resolve_version(home, built.version[:8])
    (home / "versions/abcdabcdabcdabcd").mkdir()
    with pytest.raises(InputError, match="no dataset version begins with abcd"):
        resolve_version(home, "abcdabcdabcdabcd")


def test_a_version_whose_manifest_was_edited_can_still_be_named_for_an_audit(built: BuiltRound) -> None:
    (folder_of(built) / "manifest.json").write_bytes(b"{}")
    for text in (built.version[:10], built.version[:16], built.version):
        assert bad_files(BuiltRound(built.home, resolve_version(built.home, text), built.manifest, {}, {}))
