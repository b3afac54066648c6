"""What another type changes is counted right: by hand, and on a round whose numbers are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deploy.checks import precision
from deploy.checks.precision import Numbers, changed
from storage.home import Home
from storage.tables import read_table
from storage.versions import load_manifest, table_refs
from tasks.resources import release
from tasks.screening.entropy import EntropyConfig
from tests.published_world import publish_world
from tests.world import make_world


def test_changes_counted_by_hand() -> None:
    # alpha 1: the first root's threshold is 1 + sqrt(3), the other's is 1 of both types and nothing lies above it.
    one = Numbers(
        {4: np.array([0.0, 0, 0, 0, 4]), 7: np.array([0.0, 1, 1, 1, 1])},
        {(4, 4, 0): 2.0, (4, 4, 1): 2.5, (7, 1, 0): 0.0},
    )
    other = Numbers(
        {4: np.array([9.0, 0, 0, 4, 4]), 7: np.array([9.0, 1, 1, 1, 1.5])},
        {(4, 4, 0): 2.5, (4, 4, 1): 2.25, (7, 1, 0): 0.0},
    )
    found = changed(one, other, 1, EntropyConfig(alpha=1.0, min_context=0), 0.4)
    assert (found.roots, found.positions) == (2, 8)
    assert (found.largest, found.mean) == (4.0, 4.5 / 8)
    # Of the first root position 4 is no longer above 2 + 2, of the second position 4 now is.
    assert (found.selected, found.selected_otherwise) == (1, 2)
    assert (found.verdicts, found.kept, found.kept_otherwise) == (3, 2, 2)
    assert (found.largest_after, found.mean_after) == (0.5, 0.25)
    assert found.largest_gain == pytest.approx(0.125)  # of 0.5, 0.375 and 1: 0.375, 0.4375 and 1
    assert found.verdicts_near == 2


def test_a_round_scored_again_in_16_bits(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = publish_world(make_world(home, tmp_path, monkeypatch))
    words = [published.version[:8], "--home", str(home.path), "--threads", "1", "--roots", "100"]
    assert precision.main([*words, "--json"]) == 0
    release()
    found = json.loads(capsys.readouterr().out)
    manifest = load_manifest(home, published.version)
    refs = table_refs(published.version, manifest, "verdicts")
    assert found["verdicts"] == sum(ref.rows for ref in refs)
    assert found["kept"] == sum(int(read_table(home.path, ref)["kept"].sum()) for ref in refs)
    assert 0 < found["mean"] < found["largest"] < 0.5
    assert found["verdicts_near"] >= found["kept_otherwise"]
    assert precision.main(["7" * 8, "--home", str(home.path)]) != 0
    assert "7777" in capsys.readouterr().err
