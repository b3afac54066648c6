"""Flips a bit in a table that a finished step has made, between two steps, and shows that it is found and made again.

    python deploy/drills/damage_drill.py --damages 6                               preset quickstart, small

By turns, after a number of finished steps drawn by ``--seed``:

- the campaign is killed, a bit of a finished step's table is flipped, and the same command is given again;
- the campaign is stopped (SIGSTOP) the moment a step is finished, a bit of that step's table is flipped, and it goes
  on. The step that reads the table, or the publication, has to end the command with exit code 1 and one line that names
  the file; then the same command is given again.

Exit code 0 means that every damaged table was found and made again, that nothing else was done twice, and that the home
has the versions of a run in peace.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    run_to_end,
)
from deploy.drills.flip_drill import flip
from deploy.drills.kill_drill import POLL_SECONDS, Verdict, events, steps_finished
from storage.errors import IntegrityError
from storage.files import read_json

_FAST = POLL_SECONDS / 4


@dataclass(frozen=True)
class Damage:
    """A flipped bit."""

    step: str
    key: str
    file: str
    bit: int


def finished_steps(home: Path) -> list[tuple[str, str]]:
    """(step, key) of the steps that are finished and have a table in ``work``, in their order."""
    done = [(str(e.get("step")), str(e.get("key"))) for e in events(home) if e.get("event") == "finished"]
    return [pair for pair in dict.fromkeys(done) if tables(home, *pair)]


def tables(home: Path, step: str, key: str) -> list[Path]:
    """The tables of a finished step that are not empty, as its record names them."""
    record = home / f"checkpoints/{step}/{key}.json"
    refs = read_json(record).get("refs", {}) if record.is_file() else {}
    return [home / ref["uri"] for ref in refs.values() if str(ref["uri"]).startswith("work/") and ref["rows"]]


def damage(home: Path, step: str, key: str, dice: random.Random) -> Damage:
    """Flips a bit of one of the step's tables, in place."""
    path = dice.choice(tables(home, step, key))
    bit = dice.randrange(8 * path.stat().st_size)
    flip(path, bit)
    return Damage(step, key, path.relative_to(home).as_posix(), bit)


def stop_at(running: Running, home: Path, steps: int, *, newest: bool) -> bool:
    """Waits until so many steps are finished and stops the command there; whether it was still going on.

    With ``newest`` it waits for one more step with a table to be finished, and stops at once.
    """
    known = len(finished_steps(home))
    while running.process.poll() is None:
        if steps_finished(events(home)) >= steps and (not newest or len(finished_steps(home)) > known):
            os.killpg(running.process.pid, signal.SIGSTOP)
            return True
        time.sleep(_FAST)
    return False


def drill(ground: Ground, at: Sequence[int], dice: random.Random) -> Iterator[Verdict]:
    """Damages one table at each of ``at`` finished steps, by turns with the campaign killed and stopped."""
    home, log = ground.home("damaged"), ground.log("damaged")
    command = ground.command(home)
    damages: list[Damage] = []
    for number, steps in enumerate(at):
        going_on = bool(number % 2)
        running = begin(command, log)
        if not stop_at(running, home, steps, newest=going_on) or not finished_steps(home):
            yield Verdict(f"the campaign is under way at step {steps}", False, running.wait().line)
            running.end()
            continue
        found = finished_steps(home)
        done = damage(home, *(found[-1] if going_on else dice.choice(found)), dice)
        damages.append(done)
        if not going_on:
            running.end()
            yield Verdict(f"bit {done.bit} of {done.file} flipped", True, f"killed after {steps} steps")
            continue
        os.killpg(running.process.pid, signal.SIGCONT)
        ending = running.wait()
        named = ending.is_clear and (Path(done.file).name in ending.line or _published(ending.line, done))
        yield Verdict(
            f"bit {done.bit} of {done.file} flipped while the campaign goes on",
            ending.code == IntegrityError.exit_code and named,
            f"exit code {ending.code}: {ending.line}",
        )
    yield carried_on("the same command ends well", run_to_end(command, log))
    for done in damages:
        why = [str(e.get("why")) for e in events(home) if e.get("event") == "distrusted" and e.get("key") == done.key]
        yield Verdict(f"{done.file} was found damaged and made again", bool(why), "; ".join(why))
    yield from as_undisturbed(ground, home, damaged={done.key for done in damages})


def _published(line: str, done: Damage) -> bool:
    """Whether the publication refused the table: it names the file by its place in the version."""
    table = Path(done.file).stem.rpartition("-")[2]
    return "can't be published" in line and table in line


def main(given: Sequence[str] | None = None) -> int:
    """Runs the drill; 0 when every claim holds, else 1."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--damages", type=int, default=6, help="how many bits are flipped (6)")
    chosen = parser.parse_args(given)
    ground, dice = ground_of(chosen), random.Random(chosen.seed)
    at = [max(steps, 1) for steps in moments(ground.steps - 1, chosen.damages, dice.uniform)]
    return conclude(ground, drill(ground, at, dice), audits(ground, ground.home("damaged"), "audit"), keep=chosen.keep)


if __name__ == "__main__":
    sys.exit(main())
