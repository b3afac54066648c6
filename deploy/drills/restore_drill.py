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

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from deploy.drills.kill_drill import (  # noqa: E402
    POLL_SECONDS,
    Verdict,
    audit,
    console,
    events,
    judge,
    kill,
    policylong,
    round_versions,
    run_undisturbed,
    show,
    start,
    steps_finished,
)

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


def drill(scratch: Path, run: Sequence[str]) -> Iterator[Verdict]:
    """The whole drill; yields what holds and what does not."""
    undisturbed, lost, restored = scratch / "undisturbed", scratch / "lost", scratch / "elsewhere" / "restored"
    log = scratch / "restored.log"
    timeline = run_undisturbed(policylong(undisturbed, "run", *run), undisturbed, scratch / "undisturbed.log")
    steps = steps_finished(events(undisturbed))
    console.print(f"undisturbed: {timeline.total:.0f} s, {steps} steps")
    code = run_half(policylong(lost, "run", *run), lost, log, steps // 2)
    known = steps_finished(events(lost))
    yield Verdict("the first half was stopped on request", code == 130, f"exit code {code}, {known} of {steps} steps")
    back_up(lost, scratch / "backup.tar")
    shutil.rmtree(lost)
    restore(scratch / "backup.tar", restored)
    megabytes = (scratch / "backup.tar").stat().st_size / 1e6
    again = run_undisturbed(policylong(restored, "run", *run), restored, log)
    carried = f"{megabytes:.1f} MB restored, {steps_finished(events(restored)) - known} steps in {again.total:.0f} s"
    yield Verdict("the same command carries on in the restored home", True, carried)
    yield from judge(undisturbed, restored, only_first=False)
    for number in sorted(round_versions(restored)):
        yield audit(restored, number, log)
    yield Verdict("nothing was written where the home had been", not lost.exists(), str(lost))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the drill; 0 when every claim holds, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--scratch", type=Path, help="a new folder for everything; a temporary one by default")
    parser.add_argument("--keep", action="store_true", help="keep it")
    parser.add_argument("run", nargs="*", help="options of policylong run, after --")
    chosen = parser.parse_args(arguments)
    scratch = chosen.scratch or Path(tempfile.mkdtemp(prefix="policylong-restore-"))
    scratch.mkdir(parents=True, exist_ok=True)
    verdicts = list(drill(scratch, chosen.run or ["--preset", "quickstart-small"]))
    show(verdicts)
    good = all(verdict.holds for verdict in verdicts)
    if good and not chosen.keep:
        shutil.rmtree(scratch)
    else:
        console.print(f"everything is in {scratch}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
