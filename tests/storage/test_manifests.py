"""The manifest: what can't be is refused, and its canonical bytes survive being read."""

from __future__ import annotations

from typing import Any

import pytest

from storage.errors import IntegrityError
from storage.home import Home
from storage.manifests import Manifest, parse_manifest
from tests.rounds import BuiltRound, build_round


@pytest.fixture
def built(home: Home) -> BuiltRound:
    return build_round(home)


@pytest.mark.parametrize(
    "update",
    [
        {"figures": {"mean_gain": float("nan")}},
        {"config": {"changed": True}},
        {"files": {"../escape": {"sha256": "0" * 64, "bytes": 0}}},
        {"files": {"manifest.json": {"sha256": "0" * 64, "bytes": 0}}},
        {"surprise": 1},
        {"round": 0},
    ],
)
def test_a_manifest_that_can_not_be_is_refused(built: BuiltRound, update: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Manifest.model_validate({**built.manifest.model_dump(mode="json"), **update})


def test_the_canonical_form_survives_being_read(built: BuiltRound) -> None:
    whole = built.manifest.model_copy(
        update={"figures": {"a": 0.1 + 0.2, "b": 1.0, "c": 1e-300}, "config": {"é": [1, None]}}
    )
    with pytest.raises(IntegrityError, match="config_digest"):
        parse_manifest(whole.canonical, "x")
    good = built.manifest.model_copy(update={"figures": {"a": 0.1 + 0.2, "b": 1.0, "c": 1e-300}})
    assert parse_manifest(good.canonical, "x").canonical == good.canonical
