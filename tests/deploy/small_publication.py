"""The publish drill in short: a round of the world by hand, without plots and MLflow, killed at every position.

python -m tests.deploy.small_publication SCRATCH        a process of its own, since the drill forks

Prints the positions, the outcomes that are wrong and the cut manifests that are not refused, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from deploy.drills.publish_drill import Publication, cut_manifests, drill, table
from storage.campaigns import RoundRecord, load_campaign, record_round, start_campaign
from storage.home import Home
from storage.versions import list_versions, publish_version, verify_version
from tests.rounds import build_round
from tests.world_by_hand import CONFIG

NAME = "world"


class Untracked(Publication):
    """Files, manifest and campaign record only."""

    def publish(self, path: Path) -> str:
        home = Home.open(path)
        version = publish_version(home, self.manifest, {name: self.folder / name for name in self.manifest.files})
        record_round(home, NAME, RoundRecord(round=1, version=version, policy=self.manifest.policy))
        return version

    def state(self, path: Path) -> dict[str, Any]:
        home = Home(path)
        there = list_versions(home)
        findings = verify_version(home, self.manifest.version) if there else []
        return {
            "versions": there,
            "findings": [f"{f.file}: {f.detail}" for f in findings if f.status == "failed"],
            "rounds": [record.version for record in load_campaign(home, NAME).rounds],
            "half": sorted(path.name for path in (home / "versions").rglob(".*.tmp")),
            "mlflow": None,
        }


class Hasty(Untracked):
    """What must not be: the campaign has the round before it is published."""

    def publish(self, path: Path) -> str:
        record = RoundRecord(round=1, version=self.manifest.version, policy=self.manifest.policy)
        record_round(Home.open(path), NAME, record)
        return super().publish(path)


def main(scratch: Path) -> None:
    home = Home.open(scratch / "home")
    built = build_round(home)
    template = Home.open(scratch / "template")
    start_campaign(template, NAME, CONFIG)
    given = (built.manifest, home / f"versions/{built.version[:16]}", NAME, CONFIG, template.path)
    seen: list[str] = []

    def some(changes: list[str]) -> list[int]:
        seen.extend(changes)
        late = [number for number, what in enumerate(changes) if "manifest" in what or "campaigns" in what]
        return sorted({*late, *range(0, len(changes), 9)})

    outcomes = list(drill(Untracked(*given), scratch, some))
    cuts = [cut.holds for cut in cut_manifests(Untracked(*given), scratch / "calm")]
    (scratch / "calm").rename(scratch / "before")
    hasty = list(drill(Hasty(*given), scratch, lambda changes: [len(changes) // 2]))
    said = {
        "positions": seen,
        "killed": [outcome.what for outcome in outcomes],
        "wrong": [f"{outcome.what}: {outcome.wrong}" for outcome in outcomes if outcome.wrong],
        "cuts": cuts,
        "hasty": [outcome.wrong for outcome in hasty if outcome.wrong],
        "table": table(outcomes),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
