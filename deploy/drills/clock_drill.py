"""Sets the clock of a running campaign hours forward and back and shows that nothing depends on it.

    python deploy/drills/clock_drill.py                              libfaketime (Debian: apt-get install faketime)
    python deploy/drills/clock_drill.py --inject python              without it: time.time of Python alone

The clock of the command and of everything that it starts reads the offset from a file; the drill writes another one
each time a number of steps drawn by ``--seed`` is finished. Clocks that only measure durations go on: a real clock that
is set does not move them either. Then the same command is given with one more offset and has to find everything done.
Exit code 0 means that both ended well, that the second did no step, and that the home has the versions of a run in
peace.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Sequence
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
    run_to_end,
    with_variables,
)
from deploy.drills.kill_drill import POLL_SECONDS, ROOT, Verdict, events, steps_finished

FAKETIME = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/local/lib/faketime/libfaketimeMT.so.1")
LONGEST_HOURS = 48.0
_CUSTOMIZE = '''"""Shifts the clock of this Python by the seconds in a file; imported by every Python at its start."""
import time

_REAL, _FILE = time.time, {file!r}


def _shifted():
    with open(_FILE) as file:
        return _REAL() + float(file.read() or 0)


time.time = _shifted
time.time_ns = lambda: int(_shifted() * 1e9)
'''

_SLEEP = '''"""Python sleeps until a time of the monotonic clock, and libfaketime 0.9.10 answers EINVAL to that."""
import select
import time

time.sleep = lambda seconds: select.select((), (), (), seconds) and None
'''


def library() -> Path | None:
    """libfaketime for programs with threads, where it is installed."""
    return next((path for pattern in FAKETIME for path in Path("/").glob(pattern.lstrip("/"))), None)


def with_clock(command: Sequence[str], file: Path, faketime: Path | None) -> list[str]:
    """The command with a clock that is shifted by what ``set_clock`` last wrote."""
    folder = file.parent / "clock"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SLEEP if faketime else _CUSTOMIZE.format(file=str(file)))
    imported = {"PYTHONPATH": f"{folder}:{ROOT}"}
    if faketime is None:
        return with_variables(command, **imported)
    return with_variables(
        command,
        **imported,
        LD_PRELOAD=str(faketime),
        FAKETIME_TIMESTAMP_FILE=str(file),
        FAKETIME_NO_CACHE="1",
        DONT_FAKE_MONOTONIC="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
        NO_FAKE_STAT="1",
    )


def set_clock(file: Path, hours: float) -> None:
    """Sets the offset; a reader sees the old one or the new one."""
    temporary = file.with_suffix(".tmp")
    temporary.write_text(f"{3600 * hours:+.0f}\n")
    temporary.replace(file)


def drill(ground: Ground, at: Sequence[int], dice: random.Random, faketime: Path | None) -> Iterator[Verdict]:
    """Sets the clock after each number of finished steps in ``at``, forward and back by turns."""
    home, log, file = ground.home("jumped"), ground.log("jumped"), ground.scratch / "offset"
    set_clock(file, 0)
    command = with_clock(ground.command(home), file, faketime)
    running = begin(command, log)
    made = []
    for number, steps in enumerate(at):
        while running.process.poll() is None and steps_finished(events(home)) < steps:
            time.sleep(POLL_SECONDS)
        if running.process.poll() is None:
            hours = dice.uniform(1, LONGEST_HOURS) * (-1) ** number
            set_clock(file, hours)
            made.append(f"{hours:+.1f} h at step {steps}")
    yield carried_on("the command ends well", running.wait())
    yield Verdict("the clock was set", len(made) == len(at), "; ".join(made))
    seen = [float(str(line["time"])) - time.time() for line in events(home)]
    span = (max(seen) - min(seen)) / 3600 if seen else 0.0
    yield Verdict("the home's journal shows it", span > 1 or not made, f"times over {span:.1f} hours")
    done = steps_finished(events(home))
    set_clock(file, -LONGEST_HOURS)
    yield carried_on(f"the same command ends well {LONGEST_HOURS:.0f} hours earlier", run_to_end(command, log))
    again = steps_finished(events(home)) - done
    yield Verdict("it finds everything done", again == 0, f"{again} steps of {done}")
    yield from as_undisturbed(ground, home)


def main(given: Sequence[str] | None = None) -> int:
    """Runs the drill; 0 when every claim holds, else 1."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--jumps", type=int, default=6, help="how often the clock is set (6)")
    parser.add_argument("--inject", choices=("faketime", "python"), help="how; faketime where it is installed")
    chosen = parser.parse_args(given)
    faketime = library() if chosen.inject != "python" else None
    if chosen.inject == "faketime" and faketime is None:
        parser.error("libfaketime is not installed (Debian: apt-get install faketime)")
    ground, dice = ground_of(chosen), random.Random(chosen.seed)
    at = moments(ground.steps, chosen.jumps, dice.uniform)
    audited = audits(ground, ground.home("jumped"), "audit")
    return conclude(ground, drill(ground, at, dice, faketime), audited, keep=chosen.keep)


if __name__ == "__main__":
    sys.exit(main())
