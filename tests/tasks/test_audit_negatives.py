"""The audit of verified negatives: what the policy measured decides which of them are kept."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from storage.home import Home
from tasks.audit.checks import audit_version
from tests.rounds import build_rounds, version_folder
from tests.world_by_hand import CONFIG, Shards

EPSILON = 0.1
CHECK = "every verified negative is kept or left out as its gain says"
UNASKED = "no negative has a gain that nobody measured"
VERIFIED: dict[str, Any] = {**CONFIG, "negative_verification": {"enabled": True, "epsilon": EPSILON}}
JUST_BELOW, AT = float(np.nextafter(np.float32(EPSILON), np.float32(0))), float(np.float32(EPSILON))


def follows(gain: float | None, kept: bool, reason: str | None) -> bool:
    """The rule in words: kept means measured below epsilon, helpful at or above it, not-verified not measured; what
    was left out before says nothing of a gain.
    """
    if kept:
        return gain is not None and gain < EPSILON
    if reason == "helpful":
        return gain is not None and gain >= EPSILON
    return reason != "not-verified" or gain is None


CASES = [
    (gain, kept, None if kept else reason)
    for gain, kept, reason in itertools.product(
        (None, JUST_BELOW, AT), (True, False), ("helpful", "not-verified", "near-duplicate")
    )
    if not kept or reason == "helpful"
]


@pytest.mark.parametrize(("gain", "kept", "reason"), CASES)
def test_a_verified_negative_is_judged_by_its_gain_as_it_is_stored(
    gain: float | None, kept: bool, reason: str | None, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.rounds.CONFIG", VERIFIED)

    def change(tables: Shards) -> None:
        for rows in tables["negatives"]:
            for row in rows:
                row["max_gain"] = 0.05 if row["kept"] else None
        tables["negatives"][0][1].update(max_gain=gain, kept=kept, reason=reason)

    (built,) = build_rounds(home, 1, change=change)
    found = {finding.check: finding.file for finding in audit_version(home, built.version).failures}
    table = f"{version_folder(built).relative_to(home.path)}/tables/negatives-00000.parquet"
    assert found.get(CHECK) == (None if follows(gain, kept, reason) else table), found


def test_a_gain_in_a_round_that_verified_no_negatives_is_found(home: Home) -> None:
    def change(tables: Shards) -> None:
        tables["negatives"][1][0]["max_gain"] = 0.05

    (built,) = build_rounds(home, 1, change=change)
    found = {finding.check: finding.file for finding in audit_version(home, built.version).failures}
    assert found == {UNASKED: f"{version_folder(built).relative_to(home.path)}/tables/negatives-00001.parquet"}
