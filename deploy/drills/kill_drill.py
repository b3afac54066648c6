"""Kills a campaign with SIGKILL at random moments and shows that it comes out as if nothing had happened.

    python deploy/drills/kill_drill.py --kills 20                                   preset quickstart
    python deploy/drills/kill_drill.py --kills 5 -- --preset quickstart-small       anything ``policylong run`` takes

The campaign runs once undisturbed in a scratch home. In a second home its process group is killed, again and again,
and the same command started again, until the kills are used up; then it runs to its end. Exit code 0 means:

- both homes have the same dataset version for every round (``--only-first``: for round 1),
- no step was finished twice (``journal.jsonl``), and no finished step was found damaged,
- ``policylong audit`` passes for every round of the second home.

The moments follow from ``--seed`` and the undisturbed run: its working time is cut into as many slices as there are
kills, and each kill falls into its slice, at a random point of whatever step is under way then; one in five instead
falls into the start of the process. What counts is the work done, not the clock, so a slower or faster machine is hit
in the same places.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.02
FOREIGN = ("POLICYLONG_HOME", "PREFECT_HOME", "PREFECT_API_URL", "MLFLOW_TRACKING_URI")
"""Environment variables that would lead out of the scratch home."""
console = Console(stderr=True, soft_wrap=True, highlight=False)


@dataclass(frozen=True)
class Timeline:
    """An undisturbed run, seconds from its beginning: in all, until its first step, and at each line of the journal."""

    total: float
    start: float
    steps: tuple[tuple[float, int], ...]
    """(seconds, steps finished by then) of every line of the journal."""


@dataclass(frozen=True)
class Moment:
    """When to kill: ``seconds`` after the process began, or after it works with ``finished`` steps done."""

    seconds: float
    finished: int | None = None

    def __str__(self) -> str:
        return f"after {self.seconds:.1f} s" + (
            "" if self.finished is None else f" of work after {self.finished} steps"
        )


@dataclass
class Disturbed:
    """What became of the disturbed campaign: moments at which it was killed, runs that ended by themselves."""

    kills: list[str] = field(default_factory=list)
    completed: int = 0


@dataclass(frozen=True)
class Verdict:
    """One thing the drill shows."""

    claim: str
    holds: bool
    detail: str


def draw_moment(dice: random.Random, timeline: Timeline, number: int, kills: int) -> Moment:
    """The moment of kill ``number`` (from 0) out of ``kills``."""
    if dice.random() < 0.2 or not timeline.steps:
        return Moment(dice.uniform(0.0, timeline.start))
    wanted = timeline.start + (timeline.total - timeline.start) * (number + dice.random()) / kills
    seconds, finished = max((step for step in timeline.steps if step[0] <= wanted), default=timeline.steps[0])
    return Moment(max(wanted - seconds, 0.0), finished)


def events(home: Path) -> list[dict[str, object]]:
    """The lines of a home's journal; a line that a kill cut off is left out."""
    path = home / "journal.jsonl"
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                found.append(record)
    return found


def steps_finished(lines: Sequence[dict[str, object]]) -> int:
    """Different steps that were finished."""
    return len({(line.get("step"), line.get("key")) for line in lines if line.get("event") == "finished"})


def finished_twice(home: Path) -> list[str]:
    """Steps with more than one *finished* in the journal, as ``step key``."""
    counts = Counter((str(e.get("step")), str(e.get("key"))) for e in events(home) if e.get("event") == "finished")
    return [f"{step} {key[:12]}" for (step, key), count in sorted(counts.items()) if count > 1]


def round_versions(home: Path) -> dict[int, str]:
    """Dataset version of every round of the home's current campaign."""
    pointer = home / "campaigns/current"
    if not pointer.exists():
        return {}
    campaign = json.loads((home / f"campaigns/{pointer.read_text().strip()}.json").read_text(encoding="utf-8"))
    return {int(record["round"]): str(record["version"]) for record in campaign["rounds"]}


def policylong(home: Path, *arguments: str) -> list[str]:
    """The command line on a home, as this checkout and this Python have it."""
    return [sys.executable, "-m", "flows.cli", *arguments, "--home", str(home)]


def start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts a command as the leader of a process group of its own, its output in a log."""
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )


def run_undisturbed(command: Sequence[str], home: Path, log: Path) -> Timeline:
    """Runs a command to its end and measures it; raises ``SystemExit`` naming the log when it fails."""
    began, known = time.time(), len(events(home))
    process = start(command, log)
    try:
        process.wait()
    finally:
        kill(process)
    if process.returncode:
        raise SystemExit(f"error: the command failed with exit code {process.returncode}; its output is in {log}.")
    total, lines = time.time() - began, events(home)
    steps = tuple(
        (float(str(lines[number]["time"])) - began, steps_finished(lines[: number + 1]))
        for number in range(known, len(lines))
    )
    return Timeline(total, steps[0][0] if steps else total, steps)


def run_disturbed(
    command: Sequence[str], home: Path, log: Path, *, kills: int, timeline: Timeline, dice: random.Random
) -> Disturbed:
    """Kills and starts again until the kills are used up, then lets the command run to its end.

    Kills that are left when the campaign has ended fall into runs that find everything done.
    """
    outcome = Disturbed()
    while len(outcome.kills) < kills and outcome.completed <= 3 * kills:
        if outcome.completed:
            moment = Moment(dice.uniform(0.0, timeline.start / 2 ** (outcome.completed - 1)))
        else:
            moment = draw_moment(dice, timeline, len(outcome.kills), kills)
        process = start(command, log)
        ended = wait_for(process, home, moment)
        if ended and process.returncode:
            raise SystemExit(f"error: a restarted run failed with exit code {process.returncode}; see {log}.")
        if ended:
            outcome.completed += 1
            continue
        kill(process)
        outcome.kills.append(f"{moment}, in {last_step(home)}")
        console.print(f"kill {len(outcome.kills)} of {kills}: {outcome.kills[-1]}")
    run_undisturbed(command, home, log)
    return outcome


def wait_for(process: subprocess.Popen[bytes], home: Path, moment: Moment) -> bool:
    """Waits for the moment; whether the process ended before it."""
    known = len(events(home))
    target = None if moment.finished is not None else time.monotonic() + moment.seconds
    while process.poll() is None:
        if target is None:
            lines = events(home)
            if len(lines) > known and steps_finished(lines) >= (moment.finished or 0):
                target = time.monotonic() + moment.seconds
        if target is not None and time.monotonic() >= target:
            return False
        time.sleep(POLL_SECONDS)
    return True


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the whole process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_step(home: Path) -> str:
    """What the journal says was under way."""
    found = [event for event in events(home) if "step" in event]
    return f"{found[-1].get('step')} ({found[-1].get('event')})" if found else "nothing yet"


def judge(undisturbed: Path, killed: Path, *, only_first: bool) -> Iterator[Verdict]:
    """Compares the two homes."""
    first, second = round_versions(undisturbed), round_versions(killed)
    for number in sorted(first.keys() | second.keys() | {1}):
        expected, found = first.get(number, "none"), second.get(number, "none")
        required = number == 1 or not only_first
        same = expected == found != "none"
        detail = expected[:16] if same else f"{expected[:16]} undisturbed, {found[:16]} after the kills"
        yield Verdict(f"round {number} has the same version", same or not required, detail)
    twice = finished_twice(killed)
    done = sum(event.get("event") == "finished" for event in events(killed))
    yield Verdict("no step was finished twice", not twice, ", ".join(twice) or f"{done} steps finished")
    distrusted = [f"{e.get('step')} {e.get('why')}" for e in events(killed) if e.get("event") == "distrusted"]
    yield Verdict("no finished step was found damaged", not distrusted, "; ".join(distrusted))


def audit(home: Path, number: int, log: Path) -> Verdict:
    """``policylong audit`` of a round."""
    process = start(policylong(home, "audit", str(number), "--quiet"), log)
    code = process.wait()
    return Verdict(f"the audit of round {number} passes", code == 0, f"exit code {code}")


def show(verdicts: Sequence[Verdict]) -> None:
    """The result as a table on stdout."""
    table = Table("claim", "holds", "detail")
    for verdict in verdicts:
        table.add_row(verdict.claim, "[green]yes[/]" if verdict.holds else "[bold red]NO[/]", verdict.detail)
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the drill; 0 when every claim holds, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs in all (20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (0)")
    parser.add_argument("--scratch", type=Path, help="folder for the two homes; a temporary one by default")
    parser.add_argument("--only-first", action="store_true", help="require equal versions for round 1 only")
    parser.add_argument("--keep", action="store_true", help="keep the homes and logs")
    parser.add_argument("run", nargs="*", help="options of policylong run, after --")
    chosen = parser.parse_args(arguments)
    scratch = chosen.scratch or Path(tempfile.mkdtemp(prefix="policylong-drill-"))
    scratch.mkdir(parents=True, exist_ok=True)
    homes = scratch / "undisturbed", scratch / "killed"
    logs = scratch / "undisturbed.log", scratch / "killed.log"
    commands = [policylong(home, "run", *chosen.run) for home in homes]
    console.print(f"undisturbed run in {homes[0]} (log: {logs[0]})")
    timeline = run_undisturbed(commands[0], homes[0], logs[0])
    console.print(f"it took {timeline.total:.0f} s, its first step began after {timeline.start:.0f} s")
    dice = random.Random(chosen.seed)
    outcome = run_disturbed(commands[1], homes[1], logs[1], kills=chosen.kills, timeline=timeline, dice=dice)
    verdicts = [Verdict("all kills were made", len(outcome.kills) == chosen.kills, f"{len(outcome.kills)}")]
    verdicts += judge(*homes, only_first=chosen.only_first)
    verdicts += [audit(homes[1], number, logs[1]) for number in sorted(round_versions(homes[1]))]
    show(verdicts)
    good = all(verdict.holds for verdict in verdicts)
    if good and not chosen.keep:
        shutil.rmtree(scratch)
    else:
        console.print(f"homes and logs are in {scratch}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
