"""Fills the disk under a running campaign at several moments and shows that it stops clearly and carries on.

    python deploy/drills/disk_drill.py                          six moments on a tmpfs of its own; needs root
    python deploy/drills/disk_drill.py --inject file-size       no file may become larger than a limit (RLIMIT_FSIZE)

``tmpfs``: the home lies on a small file system. When the campaign has finished a number of steps drawn by ``--seed``
one more file takes what room there is. The command has to end by itself with exit code 5 and one line that says so; the
file goes, and the same command is given again, until the next moment. ``file-size``: the limit goes up from one
command to the next, through sizes of the files that the run in peace made. Exit code 0 means that every end was clear,
the last command ended well, and the home is as if there had been room all the time.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.drills.disturbed_runs import (
    Ground,
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
from deploy.drills.kill_drill import POLL_SECONDS, Verdict, events, last_step, steps_finished
from storage.errors import ResourceError

FULL = ResourceError.exit_code
BLOCK = 1 << 20
_LIMITED = (
    "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2);"
    " os.execvp(sys.argv[2], sys.argv[2:])"
)
ENDS_SECONDS = 300.0
"""How long a command may go on with a full disk before the drill says that it hangs."""


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own in memory while the block runs; needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "policylong-drill", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file: Path, *, leave: int = 0) -> int:
    """Takes all room of the file system but ``leave`` bytes; returns the bytes taken."""
    taken = 0
    with file.open("ab") as ballast:
        while (room := _room(file.parent) - leave) > 0:
            size = min(room, BLOCK)
            try:
                os.posix_fallocate(ballast.fileno(), taken, size)
            except OSError:  # somebody else took it
                continue
            taken += size
    return taken


def _room(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def drill(ground: Ground, disk: Path, at: Sequence[int]) -> Iterator[Verdict]:
    """Fills ``disk`` when ``at`` steps are finished, one moment after the other, in one home on it."""
    home, log, ballast = ground.begun(disk / "home"), ground.log("full"), disk / "ballast"
    command = ground.command(home)
    for number, steps in enumerate(at, 1):
        running = begin(command, log)
        while running.process.poll() is None and steps_finished(events(home)) < steps:
            time.sleep(POLL_SECONDS)
        where = f"disk full at step {steps} of {ground.steps}, moment {number}"
        if running.process.poll() is not None:
            yield Verdict(where, False, f"the command had ended: {running.wait().line}")
            running.end()
            continue
        where = f"{where}, {last_step(home)}"
        fill(ballast)
        deadline = time.monotonic() + ENDS_SECONDS
        while running.process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        hangs = running.process.poll() is None
        running.end()
        ballast.unlink()
        if hangs:
            yield Verdict(where, False, f"no end after {ENDS_SECONDS:.0f} s")
        else:
            yield refusal(where, running.wait(), FULL)
    yield carried_on("with room, the same command ends well", run_to_end(command, log))
    yield from as_undisturbed(ground, home)
    yield from audits(ground, home, "full")


def limits(ground: Ground, count: int, dice: random.Random) -> list[int]:
    """``count`` sizes in bytes, rising, each smaller than some file that the run in peace made by a step."""
    kinds = ("work", "versions", "corpora", "policies")
    files = (path for kind in kinds for path in (ground.undisturbed / kind).rglob("*") if path.is_file())
    sizes = sorted({path.stat().st_size for path in files if path.stat().st_size > 1})
    places = moments(len(sizes), min(count, len(sizes)), dice.uniform)
    return [sizes[place] - 1 for place in places]


def drill_limits(ground: Ground, sizes: Sequence[int]) -> Iterator[Verdict]:
    """Runs the campaign in one home with one limit of the size of a file after the other, then without."""
    home, log = ground.home("limited"), ground.log("limited")
    command = ground.command(home)
    for size in sizes:
        ending = run_to_end([sys.executable, "-c", _LIMITED, str(size), *command], log)
        yield refusal(f"no file over {size:,} bytes", ending, FULL)
    yield carried_on("without a limit, the same command ends well", run_to_end(command, log))
    yield from as_undisturbed(ground, home)


def main(given: Sequence[str] | None = None) -> int:
    """Runs the drill; 0 when every claim holds, else 1."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--moments", type=int, default=6, help="how often the disk is full (6)")
    parser.add_argument("--megabytes", type=int, default=3000, help="size of the tmpfs (3000)")
    parser.add_argument("--inject", choices=("tmpfs", "file-size"), help="how; tmpfs for root, file-size else")
    chosen = parser.parse_args(given)
    ground, dice = ground_of(chosen), random.Random(chosen.seed)
    if (chosen.inject or ("file-size" if os.geteuid() else "tmpfs")) == "file-size":
        sizes = limits(ground, chosen.moments, dice)
        return conclude(ground, drill_limits(ground, sizes), keep=chosen.keep)
    with small_disk(ground.scratch / "disk", chosen.megabytes) as disk:
        return conclude(ground, drill(ground, disk, moments(ground.steps, chosen.moments, dice.uniform)), keep=True)


if __name__ == "__main__":
    sys.exit(main())
