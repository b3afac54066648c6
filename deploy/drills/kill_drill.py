"""Kills a campaign with SIGKILL at random moments and shows that it comes out as if nothing had happened.

    python deploy/drills/kill_drill.py --kills 20                                   preset quickstart
    python deploy/drills/kill_drill.py --kills 5 -- --preset quickstart-small       anything ``policylong run`` takes

The campaign runs once undisturbed in a scratch home. In a second home its process group is killed, again and again,
and the same command started again, until the kills are used up; then it runs to its end. Exit code 0 means:

- both homes have the same dataset version for every round (``--only-first``: for round 1),
- no step was finished twice (``journal.jsonl``), and no finished step was found damaged,
- ``policylong audit`` passes for every round of the second home.

The moments follow from ``--seed`` and the undisturbed run's duration: one in five falls into the start of the process,
three in ten follow closely on a step's beginning or end, the others are spread over the work.
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
class Duration:
    """How long an undisturbed run takes, seconds: in all, and until its first step begins."""

    total: float
    start: float


@dataclass(frozen=True)
class Moment:
    """When to kill: ``seconds`` after the process began, or after it added ``events`` lines to the journal."""

    seconds: float
    events: int = 0

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s after event {self.events}" if self.events else f"after {self.seconds:.1f} s"


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


def draw_moment(dice: random.Random, duration: Duration, kills: int) -> Moment:
    """A moment for one kill out of ``kills`` that are to be spread over a run of this duration."""
    share = max(duration.total - duration.start, 1.0) / max(kills, 1)
    kind = dice.random()
    if kind < 0.2:
        return Moment(dice.uniform(0.0, duration.start))
    if kind < 0.5:
        return Moment(dice.uniform(0.0, 0.3), dice.randint(1, 4))
    return Moment(duration.start + dice.uniform(0.1, 1.6) * share)


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


def run_undisturbed(command: Sequence[str], home: Path, log: Path) -> Duration:
    """Runs a command to its end and measures it; raises ``SystemExit`` naming the log when it fails."""
    began = time.monotonic()
    first: float | None = None
    process = start(command, log)
    try:
        while process.poll() is None:
            if first is None and (home / "journal.jsonl").exists():
                first = time.monotonic() - began
            time.sleep(POLL_SECONDS)
    finally:
        kill(process)
    if process.returncode:
        raise SystemExit(f"error: the command failed with exit code {process.returncode}; its output is in {log}.")
    total = time.monotonic() - began
    return Duration(total, total if first is None else first)


def run_disturbed(
    command: Sequence[str], home: Path, log: Path, *, kills: int, duration: Duration, dice: random.Random
) -> Disturbed:
    """Kills and starts again until the kills are used up, then lets the command run to its end."""
    outcome = Disturbed()
    while len(outcome.kills) < kills and outcome.completed <= kills:
        moment = draw_moment(dice, duration, kills)
        process = start(command, log)
        ended = wait_for(process, home, moment, patience=duration.total)
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


def wait_for(process: subprocess.Popen[bytes], home: Path, moment: Moment, *, patience: float) -> bool:
    """Waits for the moment, at most ``patience`` seconds for its events; whether the process ended before it."""
    began = time.monotonic()
    known, target = len(events(home)), None if moment.events else began + moment.seconds
    while target is None or time.monotonic() < target:
        if process.poll() is not None:
            return True
        if target is None and len(events(home)) >= known + moment.events:
            target = time.monotonic() + moment.seconds
        if time.monotonic() > began + patience:
            break
        time.sleep(POLL_SECONDS)
    return process.poll() is not None


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the whole process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_step(home: Path) -> str:
    """What the journal says was under way."""
    found = events(home)
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
    duration = run_undisturbed(commands[0], homes[0], logs[0])
    console.print(f"it took {duration.total:.0f} s, its first step began after {duration.start:.0f} s")
    dice = random.Random(chosen.seed)
    outcome = run_disturbed(commands[1], homes[1], logs[1], kills=chosen.kills, duration=duration, dice=dice)
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
