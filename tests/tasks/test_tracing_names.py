"""Which round, sample and tokens are meant: by number, campaign and prefix, and one clear line where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from storage.errors import InputError, IntegrityError
from storage.home import Home
from tasks.provenance.lookup import find_sample, find_span, open_subject
from tasks.provenance.tracing import trace
from tests.rounds import BuiltRound, build_round, build_rounds, version_folder
from tests.traced import rows
from tests.world_by_hand import Shards


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> list[BuiltRound]:
    return build_rounds(Home.open(tmp_path_factory.mktemp("rounds") / "home"), 2)


@pytest.mark.parametrize(
    ("version", "sample", "token", "told"),
    [
        ("1", "1", None, "has samples 0 to 0: there is no sample 1"),
        ("1", "ffff0000", None, "no sample of version"),
        ("1", "zz", None, "neither a sample's number nor"),
        ("1", "0", "129", "129 tokens, 0 to 128: there is no token 129"),
        ("1", "0", "120-129", "there is no token 129"),
        ("1", "0", "9-3", "ends before it begins"),
        ("1", "0", "", "names no token"),
        ("1", "0", "-1", "names no token"),
        ("3", "0", None, "has no round 3 (finished: 1, 2)"),
        ("other:1", "0", None, "there is no campaign 'other'"),
        ("00000000", "0", None, "no dataset version begins with 00000000"),
        ("first", "0", None, "neither a round number nor"),
    ],
)
def test_what_is_not_there_is_one_clear_line(
    version: str, sample: str, token: str | None, told: str, rounds: list[BuiltRound]
) -> None:
    with pytest.raises(InputError) as error:
        trace(rounds[0].home, version, sample, token)
    assert told in error.value.message
    assert "\n" not in error.value.message


def test_a_round_by_number_by_campaign_and_by_prefix_is_the_same(rounds: list[BuiltRound]) -> None:
    home, version = rounds[1].home, rounds[1].version
    assert {trace(home, text, "0").version for text in ("2", "world:2", version[:6], version)} == {version}


def test_prefixes_that_fit_two_and_rounds_that_are_not_finished(rounds: list[BuiltRound], tmp_path: Path) -> None:
    shutil.copytree(rounds[0].home.path, tmp_path / "home")
    home, version = Home.open(tmp_path / "home"), rounds[0].version
    twin = home / f"versions/{version[:8]}{'0' * 8}"
    shutil.copytree(version_folder(BuiltRound(home, version, rounds[0].manifest, {}, {})), twin)
    with pytest.raises(InputError, match=f"{version[:8]} is ambiguous"):
        trace(home, version[:8], "0")
    (twin / "manifest.json").unlink()
    with pytest.raises(InputError, match="has no manifest, that round was not finished"):
        trace(home, twin.name, "0")
    assert trace(home, version[:8], "0").version == version


def test_an_empty_round_and_a_damaged_one(home: Home) -> None:
    built = build_round(home, change=lambda tables: tables["samples"][0].clear())
    with pytest.raises(InputError, match="has no samples"):
        trace(home, built.version, "0")
    (version_folder(built) / "tables/verdicts-00000.parquet").unlink()
    with pytest.raises(IntegrityError, match=r"verdicts-00000\.parquet is missing"):
        trace(home, built.version, "0")


def test_a_sample_by_a_prefix_that_fits_two(home: Home) -> None:
    def twice(tables: Shards) -> None:
        (sample,) = tables["samples"][0]
        tables["samples"].append([dict(sample, sample_id=sample["sample_id"][:12] + "0" * 52)])

    built = build_round(home, change=twice)
    subject = open_subject(home, built.version)
    name = rows(built, "samples")[0]["sample_id"]
    assert find_sample(subject, "1").sample_id == name[:12] + "0" * 52
    assert find_sample(subject, name[:24]).row == 0
    with pytest.raises(InputError, match="fits 2 samples"):
        find_sample(subject, name[:10])
    assert find_span(find_sample(subject, "1"), " 5-7 ") == (5, 8)
