"""Gives a command again while it runs and shows that one of the two does the work and the other says so.

    python deploy/drills/twice_drill.py --pairs 4                                  preset quickstart, small
    python deploy/drills/twice_drill.py -- --preset quickstart-small

The campaign is started twice at the same instant in an empty home: one of the two has to go on, the other one to end
with exit code 6 and one line. While the first is under way the command is given again and again, after numbers of
finished steps drawn by ``--seed``; it is stopped (SIGSTOP) meanwhile, so that it can't end first. In the end the same
command finds everything done. Exit code 0 means that this held, and that the home has the versions of a run in peace
with no step done twice.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.drills.disturbed_runs import (
    Ground,
    Running,
    arguments,
    as_undisturbed,
    audits,
    begin,
    carried_on,
    conclude,
    ground_of,
    moments,
    refusal,
    run_to_end,
)
from deploy.drills.kill_drill import POLL_SECONDS, Verdict, events, steps_finished
from storage.errors import BusyError


def first_at_work(pair: Sequence[Running], home: Path) -> tuple[Running, Running]:
    """Of two commands the one that the journal names first, and the other; the first is stopped (SIGSTOP)."""
    while all(one.process.poll() is None for one in pair):
        for line in events(home):
            for one in pair:
                if line.get("pid") == one.process.pid:
                    os.killpg(one.process.pid, signal.SIGSTOP)
                    return one, next(other for other in pair if other is not one)
        time.sleep(POLL_SECONDS / 4)
    refused, first = sorted(pair, key=lambda one: one.process.poll() is None)
    return first, refused


def drill(ground: Ground, at: Sequence[int]) -> Iterator[Verdict]:
    """Two commands at once, then one more after each number of finished steps in ``at``."""
    home = ground.home("twice")
    command = ground.command(home)
    pair = [begin(command, ground.log(f"twice-{number}")) for number in (1, 2)]
    first, other = first_at_work(pair, home)
    yield refusal("of two at the same instant one is refused", other.wait(), BusyError.exit_code)
    log = ground.log("again")
    for steps in at:
        # Stopped, the first one can't be finished before the other one looks.
        with suppress(ProcessLookupError):
            os.killpg(first.process.pid, signal.SIGCONT)
        while first.process.poll() is None and steps_finished(events(home)) < steps:
            time.sleep(POLL_SECONDS / 4)
        if first.process.poll() is None:
            os.killpg(first.process.pid, signal.SIGSTOP)
            ending = run_to_end(command, log)
            yield refusal(f"one more after {steps} of {ground.steps} steps is refused", ending, BusyError.exit_code)
    with suppress(ProcessLookupError):
        os.killpg(first.process.pid, signal.SIGCONT)
    yield carried_on("the first one ends well", first.wait())
    done = steps_finished(events(home))
    yield carried_on("the same command once more ends well", run_to_end(command, log))
    again = steps_finished(events(home)) - done
    yield Verdict("it finds everything done", again == 0, f"{again} steps of {done}")
    yield from as_undisturbed(ground, home)
    versions = sorted(path.name for path in (home / "versions").iterdir())
    known = sorted(path.name for path in (ground.undisturbed / "versions").iterdir())
    yield Verdict("there is no other version", versions == known, ", ".join(versions))


def main(given: Sequence[str] | None = None) -> int:
    """Runs the drill; 0 when every claim holds, else 1."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--pairs", type=int, default=4, help="how often the command is given beside the first (4)")
    chosen = parser.parse_args(given)
    ground = ground_of(chosen)
    at = moments(ground.steps, chosen.pairs - 1, random.Random(chosen.seed).uniform)
    return conclude(ground, drill(ground, at), audits(ground, ground.home("twice"), "audit"), keep=chosen.keep)


if __name__ == "__main__":
    sys.exit(main())
