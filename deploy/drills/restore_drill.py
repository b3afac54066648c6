"""A home is backed up half way through a campaign, lost, and restored in another place; the campaign carries on there.

    python deploy/drills/restore_drill.py                                      preset quickstart-small
    python deploy/drills/restore_drill.py -- --preset my.yaml                  anything ``policylong run`` takes

The campaign runs once undisturbed. In a second home it is asked to stop (SIGTERM) once half of its steps are finished;
``tar`` takes the home without its vector index and locks, the home is removed, the archive unpacked elsewhere, and the
same command given with the new place. Exit code 0 means:

- every round has the undisturbed version, and no step was finished twice, before and after the loss taken together,
- the audits of the restored home pass, and nothing was written where the home had been.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.drills.disturbed_runs import Ground, arguments, as_undisturbed, audits, conclude, ground_of
from deploy.drills.kill_drill import POLL_SECONDS, Verdict, events, kill, run_undisturbed, start, steps_finished

QUICKSTART = ("--preset", "quickstart-small")
LEFT_OUT = ("index", "locks")
"""Made again from the corpus's vectors; the operating system's."""


def run_half(command: Sequence[str], home: Path, log: Path, steps: int) -> int:
    """Runs a command until so many steps are finished, asks it to stop, and returns its exit code."""
    process = start(command, log)
    try:
        while process.poll() is None and steps_finished(events(home)) < steps:
            time.sleep(POLL_SECONDS)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        return process.wait()
    finally:
        kill(process)


def back_up(home: Path, archive: Path) -> None:
    """An archive of a home in which nothing runs, as docs/operations.md has it."""
    without = [f"--exclude=./{name}" for name in LEFT_OUT]
    subprocess.run(["tar", "--create", "--file", str(archive), "--directory", str(home), *without, "."], check=True)


def restore(archive: Path, home: Path) -> None:
    """Unpacks an archive into a new folder."""
    home.mkdir(parents=True)
    subprocess.run(["tar", "--extract", "--file", str(archive), "--directory", str(home)], check=True)


def drill(ground: Ground) -> Iterator[Verdict]:
    """The whole drill; yields what holds and what does not."""
    lost, restored = ground.home("lost"), ground.scratch / "elsewhere" / "restored"
    log, backup = ground.log("restored"), ground.scratch / "backup.tar"
    code = run_half(ground.command(lost), lost, log, ground.steps // 2)
    known = steps_finished(events(lost))
    yield Verdict(
        "the first half was stopped on request", code == 130, f"exit code {code}, {known} of {ground.steps} steps"
    )
    back_up(lost, backup)
    shutil.rmtree(lost)
    restore(backup, restored)
    megabytes = backup.stat().st_size / 1e6
    again = run_undisturbed(ground.command(restored), restored, log)
    carried = f"{megabytes:.1f} MB restored, {steps_finished(events(restored)) - known} steps in {again.total:.0f} s"
    yield Verdict("the same command carries on in the restored home", True, carried)
    yield from as_undisturbed(ground, restored)
    yield from audits(ground, restored, "restored")
    yield Verdict("nothing was written where the home had been", not lost.exists(), str(lost))


def main(given: Sequence[str] | None = None) -> int:
    """Runs the drill; 0 when every claim holds, else 1."""
    chosen = arguments(__doc__ or "").parse_args(given)
    ground = ground_of(chosen, usual=QUICKSTART)
    return conclude(ground, drill(ground), keep=chosen.keep)


if __name__ == "__main__":
    sys.exit(main())
