"""The ground of a drill's own test: the small campaign once in peace, and a folder for what is disturbed.

ground = small_ground(folder, undisturbed())        the run in peace is made once per test session
"""

from __future__ import annotations

import sys
import tempfile
from functools import cache
from pathlib import Path

from deploy.drills.disturbed_runs import Ground
from deploy.drills.kill_drill import Verdict, run_undisturbed

_FOLDER = tempfile.TemporaryDirectory(prefix="policylong-undisturbed-")


def command(home: Path) -> list[str]:
    """The small campaign in a home."""
    return [sys.executable, "-m", "tests.deploy.small_campaign", str(home)]


@cache
def undisturbed() -> Path:
    """A home of the small campaign that nobody disturbed; nothing may change it."""
    home = Path(_FOLDER.name) / "home"
    run_undisturbed(command(home), home, Path(_FOLDER.name) / "log")
    return home


def small_ground(folder: Path) -> Ground:
    """Where a drill disturbs the small campaign."""
    return Ground(folder, undisturbed(), command)


def failed(verdicts: list[Verdict]) -> list[Verdict]:
    """Those that do not hold; there has to be at least one claim."""
    assert verdicts
    return [verdict for verdict in verdicts if not verdict.holds]
