"""The drill that kills a publication at every change on disk: it tries each, and sees a wrong order."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_publication_killed_at_any_change_is_none_or_whole_and_finished_by_the_same_call(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.deploy.small_publication", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["wrong"] == []
    assert said["cuts"] == [True] * 4
    positions, killed = said["positions"], said["killed"]
    manifest = [what.split()[0] for what in killed if ".manifest.json." in what or what.endswith("/manifest.json")]
    assert manifest == ["half", "open", "rename", "remove"], "also when half of the manifest is written"
    assert sum(what.startswith("link versions/") for what in positions) >= 5, "tables are links"
    assert positions[-1].partition(" ")[2].startswith("campaigns/"), "the record of the campaign is last"
    assert f"| **all** | **{len(killed)}** | **{len(killed)}** |" in said["table"]
    assert set(said["hasty"]) == {"the campaign has the round before it is published"}
