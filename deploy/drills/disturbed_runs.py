"""What drills share that disturb a campaign and give the same command again: where they work, how a command ended, what
its end has to look like, and what has to be true of the home in the end.

A drill takes the options of ``arguments()``. Without ``--undisturbed`` it first runs the campaign once in peace.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from deploy.drills.kill_drill import (
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

SMALL = (
    "--preset=quickstart-small",
    "--set=corpus.python.budget_characters=150000",
    "--set=build.roots.roots_per_round=12",
    "--set=build.entropy.alpha=1.0",
    "--set=build.assembly.target_tokens=1024",
    "--set=build.roots.probe_roots=1",
    "--set=build.roots_per_shard=4",
    "--set=evaluation.windows=2",
)
"""What is run when nothing else is asked for: the small quickstart with less text and fewer roots."""
TRACE = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Ground:
    """Where a drill works: the home of a run in peace, a folder for others, and the command for a home."""

    scratch: Path
    undisturbed: Path
    command: Callable[[Path], list[str]]
    options: tuple[str, ...] = ()
    """What ``policylong run`` is given."""
    template: Path | None = None
    """A home that every other one begins as a copy of."""

    def home(self, name: str) -> Path:
        """The home of one disturbance."""
        return self.begun(self.scratch / name)

    def begun(self, home: Path) -> Path:
        """The home, made from the template where there is one and it is not there yet."""
        if self.template is not None and not home.exists():
            shutil.copytree(self.template, home)
        return home

    def log(self, name: str) -> Path:
        """What the commands of one disturbance print."""
        return self.scratch / f"{name}.log"

    @property
    def steps(self) -> int:
        """Steps that the run in peace finished."""
        return steps_finished(events(self.undisturbed))


@dataclass(frozen=True)
class Ending:
    """How a command ended: its exit code and what it printed."""

    code: int
    said: str = field(repr=False)

    @property
    def errors(self) -> list[str]:
        """Its lines that report an error."""
        return [line for line in self.said.splitlines() if line.startswith("error: ")]

    @property
    def is_clear(self) -> bool:
        """Whether one line says what is wrong, in two sentences at least: what it is, and what to do."""
        return len(self.errors) == 1 and self.errors[0].rstrip(".").count(". ") >= 1 and TRACE not in self.said

    @property
    def line(self) -> str:
        """The line of the error, or the last one that was printed."""
        lines = self.errors or self.said.splitlines() or [""]
        return lines[-1]


@dataclass
class Running:
    """A command under way and where its own output begins in the log."""

    process: subprocess.Popen[bytes]
    log: Path
    begins: int

    def wait(self) -> Ending:
        """Its end."""
        code = self.process.wait()
        return Ending(code, self.log.read_bytes()[self.begins :].decode(errors="replace"))

    def end(self) -> None:
        """Kills it and everything that it started."""
        kill(self.process)


def begin(command: Sequence[str], log: Path) -> Running:
    """Starts a command; its log is added to."""
    size = log.stat().st_size if log.exists() else 0
    return Running(start(command, log), log, size)


def run_to_end(command: Sequence[str], log: Path) -> Ending:
    """Runs a command to its end."""
    return begin(command, log).wait()


def with_variables(command: Sequence[str], **variables: str) -> list[str]:
    """The command with environment variables of its own."""
    return ["env", *(f"{name}={value}" for name, value in variables.items()), *command]


def refusal(claim: str, ending: Ending, code: int) -> Verdict:
    """Whether a command ended with an exit code and one clear line."""
    return Verdict(claim, ending.code == code and ending.is_clear, f"exit code {ending.code}: {ending.line}")


def carried_on(claim: str, ending: Ending) -> Verdict:
    """Whether the same command ended well."""
    return Verdict(claim, ending.code == 0, "" if ending.code == 0 else f"exit code {ending.code}: {ending.line}")


def as_undisturbed(ground: Ground, home: Path, *, damaged: Collection[str] = ()) -> Iterator[Verdict]:
    """Claims about a home: the versions of the run in peace, nothing done twice, nothing found damaged.

    The finished steps of the keys ``damaged`` are expected to have been found damaged and done again, no others.
    """
    for verdict in judge(ground.undisturbed, home, only_first=False):
        if damaged and verdict.claim in ("no step was finished twice", "no finished step was found damaged"):
            continue
        yield verdict
    if damaged:
        lines = events(home)
        distrusted = [str(e.get("key")) for e in lines if e.get("event") == "distrusted"]
        again = sum(e.get("event") == "finished" for e in lines) - steps_finished(lines)
        holds = set(distrusted) == set(damaged) and len(distrusted) == again
        found = f"{len(distrusted)} times damage was found, {again} steps were done again"
        yield Verdict("what was damaged was done again, and nothing else", holds, found)


def audits(ground: Ground, home: Path, name: str) -> Iterator[Verdict]:
    """``policylong audit`` of every round of a home."""
    for number in sorted(round_versions(home)):
        yield audit(home, number, ground.log(name))


def moments(steps: int, count: int, draw: Callable[[float, float], float]) -> list[int]:
    """``count`` numbers of finished steps, one drawn from each slice of a run of ``steps`` steps."""
    return [int(draw(steps * n / count, steps * (n + 1) / count)) for n in range(count)]


def arguments(description: str) -> argparse.ArgumentParser:
    """The options of every drill of this kind."""
    parser = argparse.ArgumentParser(description=description.split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of what is drawn (0)")
    parser.add_argument("--scratch", type=Path, help="folder for homes and logs; a temporary one by default")
    parser.add_argument("--undisturbed", type=Path, help="home of a finished run of the same command; made by default")
    parser.add_argument("--from", dest="template", type=Path, help="home that every other one begins as a copy of")
    parser.add_argument("--keep", action="store_true", help="keep homes and logs")
    parser.add_argument("run", nargs="*", help="options of policylong run, after --; a small quickstart by default")
    return parser


def scratch_of(chosen: argparse.Namespace) -> Path:
    """The scratch folder of the options, there; the same one when it is asked for again."""
    chosen.scratch = (chosen.scratch or Path(tempfile.mkdtemp(prefix="policylong-drill-"))).absolute()
    chosen.scratch.mkdir(parents=True, exist_ok=True)
    return Path(chosen.scratch)


def ground_of(chosen: argparse.Namespace, *, usual: Sequence[str] = SMALL) -> Ground:
    """The ground that the options describe, its run in peace finished; ``usual`` is run when nothing is asked for."""
    scratch = scratch_of(chosen)
    options = tuple(chosen.run) or tuple(usual)
    ground = Ground(
        scratch,
        (chosen.undisturbed or scratch / "undisturbed").absolute(),
        lambda home: policylong(home, "run", *options),
        options,
        chosen.template.absolute() if chosen.template else None,
    )
    if not round_versions(ground.undisturbed):
        console.print(f"the run in peace, in {ground.undisturbed}")
        home = ground.begun(ground.undisturbed)
        run_undisturbed(ground.command(home), home, ground.log("undisturbed"))
    return ground


def conclude(ground: Ground, *parts: Iterable[Verdict], keep: bool) -> int:
    """Shows the claims of all parts as they come in and as a table; 0 when each holds: then the scratch folder goes."""
    seen: list[Verdict] = []
    for verdict in chain.from_iterable(parts):
        seen.append(verdict)
        console.print(f"{'yes' if verdict.holds else 'NO '}  {verdict.claim}: {verdict.detail}", markup=False)
    show(seen)
    good = bool(seen) and all(verdict.holds for verdict in seen)
    if good and not keep:
        shutil.rmtree(ground.scratch)
    else:
        console.print(f"homes and logs are in {ground.scratch}")
    return 0 if good else 1
