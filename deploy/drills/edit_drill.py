"""Makes one change after the other to a copy of a finished campaign and shows that ``policylong audit`` names each.

    python deploy/drills/edit_drill.py --home .policylong quickstart                    1,000 changes
    python deploy/drills/edit_drill.py --home .policylong quickstart --only 417         one of them again

Every change is alone: it is made, the whole campaign is audited (exit code 1, and a failed finding that names the
file, tag, param, metric or alias), and it is undone. Before the first and after the last one the audit has to pass.
Nothing is believed from an earlier audit: each hashes every byte of the chain. The home itself is only read.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.drills.edits import FILE_KINDS, Kind, Target, copy_home, target_of
from deploy.drills.mlflow_edits import MLFLOW_KINDS
from storage.errors import PolicylongError
from tasks.audit.campaign import CampaignReport, audit_campaign

KINDS: dict[str, Kind] = FILE_KINDS | MLFLOW_KINDS
SHARES = {"one byte changed": 5, "file deleted": 2, "file truncated": 2, "two files swapped": 2, "file added": 2}
"""How often a kind comes, beside once for each of the others."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One change and what the audit made of it."""

    number: int
    kind: str
    what: str
    found: bool
    named: bool
    seconds: float


def order() -> list[str]:
    """The kinds in the order in which they come, again and again."""
    return [kind for kind in KINDS for _ in range(SHARES.get(kind, 1))]


def drill(target: Target, numbers: Sequence[int], seed: int) -> Iterator[Outcome]:
    """One outcome for each number; the change of a number depends on it and the seed alone."""
    kinds = order() if target.database.exists() else [kind for kind in order() if kind in FILE_KINDS]
    for number in numbers:
        dice = random.Random(f"{seed}:{number}")
        kind = kinds[number % len(kinds)]
        with KINDS[kind](target, dice) as (what, needles):
            began = time.perf_counter()
            report = audit_campaign(target.home, target.campaign.name)
            seconds = time.perf_counter() - began
        yield Outcome(number, kind, what, report.exit_code == 1, names(report, needles), seconds)


def names(report: CampaignReport, needles: Sequence[Sequence[str]]) -> bool:
    """Whether for every changed thing there is one failed finding that says all its words."""
    lines = [finding.line for finding in report.failures]
    return all(any(all(word in line for word in words) for line in lines) for words in needles)


def table(outcomes: Sequence[Outcome]) -> str:
    """Kinds, how many, how many found and named, as a table in Markdown."""
    lines = ["| change | made | found | named |", "|---|---:|---:|---:|"]
    for kind in KINDS:
        of_kind = [outcome for outcome in outcomes if outcome.kind == kind]
        found, named = sum(o.found for o in of_kind), sum(o.named for o in of_kind)
        lines += [f"| {kind} | {len(of_kind)} | {found} | {named} |"] if of_kind else []
    found, named = sum(o.found for o in outcomes), sum(o.named for o in outcomes)
    return "\n".join([*lines, f"| **all** | **{len(outcomes)}** | **{found}** | **{named}** |"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the drill; 0 when every change was found and named and the campaign passes before and after."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    default = Path(os.environ.get("POLICYLONG_HOME", ".policylong"))
    parser.add_argument("--home", type=Path, default=default, help="home folder (POLICYLONG_HOME or .policylong)")
    parser.add_argument("--edits", type=int, default=1000, help="how many changes (1000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first change, for a drill in pieces (0)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the changes (0)")
    parser.add_argument("--only", type=int, help="make one change, by its number")
    parser.add_argument("--scratch", type=Path, help="folder for the copy; best on the home's volume (beside the home)")
    parser.add_argument("campaign", help="name of a finished campaign")
    chosen = parser.parse_args(arguments)
    source = chosen.home.absolute()
    numbers = [chosen.only] if chosen.only is not None else range(chosen.first, chosen.first + chosen.edits)
    outcomes: list[Outcome] = []
    try:
        with tempfile.TemporaryDirectory(dir=chosen.scratch or source.parent, prefix=".edit-drill-") as folder:
            home = copy_home(source, Path(folder) / "home")
            target = target_of(home, source, chosen.campaign)
            before = audit_campaign(home, chosen.campaign)
            print(f"untouched: {before.summary}", flush=True)
            for outcome in drill(target, numbers, chosen.seed) if not before.exit_code else ():
                outcomes.append(outcome)
                if not (outcome.found and outcome.named):
                    how = "not named" if outcome.found else "NOT FOUND"
                    print(f"{outcome.number} {how}: {outcome.kind}: {outcome.what}", flush=True)
                elif chosen.only is not None or outcome.number % 50 == 49:
                    print(f"{outcome.number} found and named: {outcome.what} ({outcome.seconds:.1f} s)", flush=True)
            after = audit_campaign(home, chosen.campaign)
    except PolicylongError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{table(outcomes)}\n\nput back: {after.summary}")
    for finding in after.failures:
        print(finding.line)
    return 0 if all(o.found and o.named for o in outcomes) and outcomes and not after.exit_code else 1


if __name__ == "__main__":
    sys.exit(main())
