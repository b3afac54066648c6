"""Runs a campaign on threads and on two Ray nodes of this machine, and shows that the versions are equal.

    python deploy/drills/ray_drill.py                               two nodes, one home that both see
    python deploy/drills/ray_drill.py --namespaces                  each node in a network namespace (root)
    python deploy/drills/ray_drill.py --namespaces --storage        the second node sees no home: files by URL (root)
    python deploy/drills/ray_drill.py --kills 10                    SIGKILL of the second node at random moments
    python deploy/drills/ray_drill.py -- --preset quickstart        anything ``policylong run`` takes

Exit code 0 means: every round has the same version in all homes, both nodes computed shards, no step was finished
twice and none was found damaged, the audits pass, and no worker process outlived its command.

A kill hits every process of the second node at once, at a random point of the shards under way; the node is then
started again, and the campaign, which is never restarted, goes on. A campaign that ends before the kills are used up
is followed by another one in a new home.
"""

from __future__ import annotations

import argparse
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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.drills.kill_drill import (
    FOREIGN,
    Verdict,
    audit,
    events,
    kill,
    policylong,
    round_versions,
    run_undisturbed,
    show,
    start,
)
from deploy.drills.ray_cluster import ADDRESSES, TwoNodes, free_port, two_nodes

PREFECT_SECONDS = 180.0
END_SECONDS = 30.0
"""Within which the workers of a command that has ended must be gone."""
console = Console(stderr=True, soft_wrap=True, highlight=False)


@dataclass
class Outcome:
    """What became of the campaigns on Ray: homes, seconds of each, moments of the kills, workers left behind."""

    homes: list[Path] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    kills: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    refused: str | None = None
    """What the command said, with its exit code, where the second node has no home and no storage was given."""


def placed(home: Path) -> Counter[str]:
    """Shards by node, as the journal of a home has them."""
    return Counter(str(event["node"]).split(" ")[0] for event in events(home) if event.get("event") == "placed")


def finished_twice(home: Path) -> list[str]:
    """Steps that are finished more than once in the journal, as ``step key``."""
    done = Counter((str(e.get("step")), str(e.get("key"))) for e in events(home) if e.get("event") == "finished")
    return [f"{step} {key[:12]}" for (step, key), count in sorted(done.items()) if count > 1]


def on_ray(cluster: TwoNodes, home: Path, options: Sequence[str], more: dict[str, str]) -> list[str]:
    """The command of a campaign on the cluster."""
    variables = [f"{name}={value}" for name, value in {**cluster.variables, **more}.items()]
    engine = ("--engine", "ray", "--ray-address", cluster.address)
    return [*cluster.prefix, "env", *variables, *policylong(home, "run", *engine, *options)]


def run_and_kill(
    cluster: TwoNodes, command: Sequence[str], home: Path, log: Path, *, kills: int, shards: int, dice: random.Random
) -> list[str]:
    """Runs a campaign and kills the second node up to so many times; gives the moments.

    ``shards`` is how many the campaign has: kills are spread over them.
    """
    second, made = cluster.nodes[1], []
    process = start(command, log)
    try:
        for number in range(kills):
            after = int(shards * (number + dice.random()) / kills)
            delay = dice.uniform(0.0, 4.0)
            if not _reached(process, home, after, delay, cluster):
                break
            busy = len(second.shards())
            names = second.kill()
            moment = f"after {after} shards and {delay:.1f} s: {len(names)} processes, {busy} at work"
            made.append(moment)
            console.print(f"  kill {len(made)}: {moment}")
            second.start()
            cluster.wait(2)
        process.wait()
    finally:
        kill(process)
    if process.returncode:
        raise SystemExit(f"error: the command failed with exit code {process.returncode}; its output is in {log}.")
    return made


def _reached(process: subprocess.Popen[bytes], home: Path, shards: int, delay: float, cluster: TwoNodes) -> bool:
    """Waits until so many shards are done and the second node is at work, then ``delay`` seconds; False at the end."""
    while process.poll() is None:
        if sum(placed(home).values()) >= shards and cluster.nodes[1].shards():
            time.sleep(delay)
            return process.poll() is None
        time.sleep(0.1)
    return False


def left_behind(cluster: TwoNodes) -> list[str]:
    """Workers that are still there some time after their command has ended."""
    end = time.monotonic() + END_SECONDS
    while found := [name for node in cluster.nodes for name in node.shards()]:
        if time.monotonic() > end:
            return found
        time.sleep(0.5)
    return []


@contextmanager
def prefect_at(host: str, prefix: Sequence[str], scratch: Path) -> Iterator[dict[str, str]]:
    """A Prefect server that every command of the drill reaches; gives the variable that says where it is."""
    port = free_port()
    command = [
        *prefix,
        "env",
        f"PREFECT_HOME={scratch / 'prefect'}",
        "PREFECT_SERVER_ANALYTICS_ENABLED=false",
        "DO_NOT_TRACK=true",
        sys.executable,
        *("-m", "prefect", "server", "start", "--host", host, "--port", str(port)),
    ]
    url = f"http://{host}:{port}/api"
    ask = [*prefix, sys.executable, "-c", f"import urllib.request as u; u.urlopen('{url}/health')"]
    process = start(command, scratch / "prefect.log")
    try:
        end = time.monotonic() + PREFECT_SECONDS
        while subprocess.run(ask, capture_output=True, check=False).returncode:
            if time.monotonic() > end or process.poll() is not None:
                raise SystemExit(f"error: Prefect did not start; its log is {scratch / 'prefect.log'}.")
        yield {"PREFECT_API_URL": url}
    finally:
        kill(process)


def campaigns(cluster: TwoNodes, scratch: Path, chosen: argparse.Namespace, more: dict[str, str]) -> Outcome:
    """Campaigns on Ray: one, or as many as the kills need."""
    outcome, dice, shards = Outcome(), random.Random(chosen.seed), 0
    options = list(chosen.run)
    if chosen.storage:
        options += ["--shared-storage", (scratch / "storage").as_uri()]
    if chosen.storage:
        outcome.refused = refused(on_ray(cluster, scratch / "ray-0", chosen.run, more), scratch / "refused.log")
        console.print(f"without shared storage: {outcome.refused}")
    while not outcome.homes or len(outcome.kills) < chosen.kills:
        home = scratch / f"ray-{len(outcome.homes)}"
        wanted = min(chosen.kills - len(outcome.kills), chosen.kills_per_campaign)
        console.print(f"campaign on Ray in {home}, {wanted} kills")
        began = time.monotonic()
        outcome.kills += run_and_kill(
            cluster,
            on_ray(cluster, home, options, more),
            home,
            scratch / f"{home.name}.log",
            kills=wanted,
            shards=shards or chosen.shards,
            dice=dice,
        )
        outcome.seconds.append(time.monotonic() - began)
        outcome.homes.append(home)
        outcome.left += left_behind(cluster)
        shards = sum(placed(home).values())
        if chosen.storage:
            shutil.rmtree(scratch / "storage")
    return outcome


def refused(command: Sequence[str], log: Path) -> str:
    """Exit code and last line of a command that has to fail."""
    process = start(command, log)
    code = process.wait()
    kill(process)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    return f"exit code {code}: {lines[-1]}"


def judge(threads: Path, outcome: Outcome, chosen: argparse.Namespace) -> Iterator[Verdict]:
    """What the homes show."""
    first = round_versions(threads)
    for number, expected in sorted(first.items()):
        found = {round_versions(home).get(number, "none") for home in outcome.homes}
        detail = expected[:16] if found == {expected} else f"{expected[:16]} on threads, {sorted(found)} on Ray"
        yield Verdict(f"round {number} has the version of threads", found == {expected}, detail)
    yield Verdict("a round was built", bool(first), f"{len(first)} rounds")
    for home in outcome.homes:
        by_node = placed(home)
        detail = ", ".join(f"{node}: {count}" for node, count in sorted(by_node.items()))
        yield Verdict(f"both nodes computed shards ({home.name})", len(by_node) == 2, detail)
        twice = finished_twice(home)
        done = sum(event.get("event") == "finished" for event in events(home))
        yield Verdict(f"no step was finished twice ({home.name})", not twice, ", ".join(twice) or f"{done} finished")
        damaged = [str(e.get("why")) for e in events(home) if e.get("event") == "distrusted"]
        yield Verdict(f"no finished step was found damaged ({home.name})", not damaged, "; ".join(damaged))
    if outcome.refused is not None:
        one_line = outcome.refused.startswith("exit code 2: error: Ray node") and "home" in outcome.refused
        yield Verdict("a node without the home is refused in one line", one_line, outcome.refused)
    yield Verdict("no worker outlived its command", not outcome.left, ", ".join(outcome.left))
    if chosen.kills:
        yield Verdict("all kills were made", len(outcome.kills) == chosen.kills, f"{len(outcome.kills)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the drill; 0 when every claim holds, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=0, help="SIGKILLs of the second node in all (0)")
    parser.add_argument("--kills-per-campaign", type=int, default=10, help="at most so many in one campaign (10)")
    parser.add_argument(
        "--shards", type=int, default=16, help="scoring shards of a campaign, for the first moments (16)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (0)")
    parser.add_argument("--cpus", type=int, default=2, help="CPUs of each node (2)")
    parser.add_argument("--namespaces", action="store_true", help="each node in a network namespace; needs root")
    parser.add_argument("--storage", action="store_true", help="the second node sees no home; needs root")
    parser.add_argument("--threads", type=Path, help="a home in which the same campaign ran on threads")
    parser.add_argument("--scratch", type=Path, help="folder for the homes; a temporary one by default")
    parser.add_argument("--keep", action="store_true", help="keep the homes and logs")
    parser.add_argument("run", nargs="*", help="options of policylong run, after --; --preset quickstart-small")
    chosen = parser.parse_args(arguments)
    chosen.run = chosen.run or ["--preset", "quickstart-small"]
    for name in FOREIGN:
        os.environ.pop(name, None)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that the nodes end as well
    scratch = (chosen.scratch or Path(tempfile.mkdtemp(prefix="policylong-ray-drill-"))).absolute()
    scratch.mkdir(parents=True, exist_ok=True)
    threads = chosen.threads or scratch / "threads"
    seconds = 0.0
    if chosen.threads is None:
        console.print(f"campaign on threads in {threads}")
        with prefect_at("127.0.0.1", (), scratch) as reached:
            variables = [f"{name}={value}" for name, value in reached.items()]
            command = ["env", *variables, *policylong(threads, "run", *chosen.run)]
            seconds = run_undisturbed(command, threads, scratch / "threads.log").total
    blind = None
    if chosen.storage:
        blind = scratch / "ray-0"
        blind.mkdir(exist_ok=True)
    with two_nodes(scratch, cpus=chosen.cpus, namespaces=chosen.namespaces, blind=blind) as cluster:
        host = ADDRESSES[0] if chosen.namespaces else "127.0.0.1"
        with prefect_at(host, cluster.prefix, scratch) as reached:
            outcome = campaigns(cluster, scratch, chosen, reached)
    verdicts = list(judge(threads, outcome, chosen))
    for home in outcome.homes:
        log = scratch / f"{home.name}.log"
        verdicts += [audit(home, number, log) for number in sorted(round_versions(home))]
    table = Table("campaign", "seconds", "shards by node")
    table.add_row("threads", f"{seconds:.0f}" if seconds else "before", "")
    for home, took in zip(outcome.homes, outcome.seconds, strict=True):
        table.add_row(home.name, f"{took:.0f}", ", ".join(f"{n}: {c}" for n, c in sorted(placed(home).items())))
    Console().print(table)
    show(verdicts)
    good = all(verdict.holds for verdict in verdicts)
    if good and not chosen.keep:
        shutil.rmtree(scratch)
    else:
        console.print(f"homes and logs are in {scratch}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
