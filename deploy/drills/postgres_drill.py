"""A campaign with Prefect and MLflow on PostgreSQL, which crashes on the way.

    python deploy/drills/postgres_drill.py                                     preset quickstart-small
    python deploy/drills/postgres_drill.py -- --preset my.yaml                 anything ``policylong run`` takes

Needs PostgreSQL's programs (Debian: apt-get install postgresql) and the extra ``postgres`` of this project. A cluster
of its own is made in a scratch folder, on loopback, with a password that nobody chose; ``prefect server start`` and
``mlflow server`` keep their records in it. The campaign runs once without servers, then in a second home against
them by PREFECT_API_URL and MLFLOW_TRACKING_URI. Half way PostgreSQL is ended as a crash would end it; it stays away for
one more attempt, comes back, and the same command carries on. Exit code 0 means:

- every round has the version that the run without servers gave, no step was finished twice, the audits pass,
- runs of both servers are rows of PostgreSQL, neither has a database in the home, and no flow run is left under way,
- each attempt without PostgreSQL ended with one line and exit code 4,
- the servers' processes lived through it, and the password is in no file but PostgreSQL's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from deploy.drills.disturbed_runs import (  # noqa: E402
    Ground,
    arguments,
    as_undisturbed,
    conclude,
    ground_of,
    scratch_of,
)
from deploy.drills.kill_drill import (  # noqa: E402
    FOREIGN,
    Verdict,
    console,
    events,
    kill,
    policylong,
    round_versions,
    steps_finished,
)
from deploy.drills.postgres_cluster import HOST, Cluster, free_port  # noqa: E402

PREFECT, MLFLOW = "prefect", "mlflow"
START_SECONDS, ATTEMPT_SECONDS = 240.0, 1800.0
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
SERVICE_GONE = 4
"""Exit code of a service that does not answer (docs/operations.md)."""


@dataclass(frozen=True)
class Attempt:
    """One call of the command line: exit code, what it said on stderr, seconds."""

    code: int
    said: str
    seconds: float

    @property
    def one_line(self) -> bool:
        """Whether it ended with one line that says what is wrong, and no traceback."""
        lines = self.said.splitlines()
        errors = [line for line in lines if line.startswith("error")]
        return len(errors) == 1 and lines[-1] == errors[0] and "Traceback" not in self.said


@dataclass
class Servers:
    """Prefect and MLflow on a cluster, each in a process group of its own."""

    cluster: Cluster
    scratch: Path
    prefect_port: int
    mlflow_port: int

    def commands(self) -> dict[str, list[str]]:
        """The command lines, as deploy/compose.yaml has them; no secret is in them."""
        mlflow = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(self.mlflow_port)]
        mlflow += ["--workers", "1", "--artifacts-destination", (self.scratch / "artifacts").as_uri()]
        prefect = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(self.prefect_port)]
        return {PREFECT: prefect, MLFLOW: mlflow}

    def environment(self) -> dict[str, str]:
        """The environment of both servers."""
        return surroundings() | {
            "PREFECT_HOME": str(self.scratch / "prefect-server"),
            "PREFECT_UI_STATIC_DIRECTORY": str(self.scratch / "prefect-ui"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.cluster.url(PREFECT, "asyncpg"),
            "MLFLOW_BACKEND_STORE_URI": self.cluster.url(MLFLOW, "psycopg"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "DO_NOT_TRACK": "true",
        }

    def client(self) -> dict[str, str]:
        """The environment of a command that uses them."""
        return surroundings() | {
            "PREFECT_API_URL": f"http://{HOST}:{self.prefect_port}/api",
            "MLFLOW_TRACKING_URI": f"http://{HOST}:{self.mlflow_port}",
            "POLICYLONG_MLFLOW_PATIENCE": "20",
        }

    @contextmanager
    def running(self) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
        """Both servers, answering, while the block runs."""
        processes = {}
        try:
            for name, command in self.commands().items():
                with (self.scratch / f"{name}.log").open("ab") as log:
                    processes[name] = subprocess.Popen(
                        command,
                        env=self.environment(),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                        cwd=self.scratch,
                    )
            self._wait(processes[PREFECT], f"http://{HOST}:{self.prefect_port}/api/health", PREFECT)
            self._wait(processes[MLFLOW], f"http://{HOST}:{self.mlflow_port}/health", MLFLOW)
            yield processes
        finally:
            for process in processes.values():
                kill(process)

    def _wait(self, process: subprocess.Popen[bytes], address: str, name: str) -> None:
        end = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < end:
            try:
                if httpx.get(address, timeout=5, trust_env=False).status_code == httpx.codes.OK:
                    return
            except httpx.HTTPError:
                time.sleep(0.2)
        raise SystemExit(f"error: {name} did not come up on PostgreSQL; its log is {self.scratch / f'{name}.log'}.")


def surroundings() -> dict[str, str]:
    """This process's environment without what leads to other servers."""
    kept = {name: value for name, value in os.environ.items() if name not in (*FOREIGN, "POSTGRES_PASSWORD")}
    return kept | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}


def attempt(
    home: Path, log: Path, environment: Mapping[str, str], *arguments: str, cluster: Cluster | None = None, at: int = 0
) -> Attempt:
    """Runs a command; ``cluster`` crashes once ``at`` different steps are finished."""
    began = time.monotonic()
    with log.open("ab") as out, tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            policylong(home, *arguments),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=said,
            start_new_session=True,
        )
        try:
            while process.poll() is None and time.monotonic() - began < ATTEMPT_SECONDS:
                if cluster is not None and steps_finished(events(home)) >= at:
                    console.print(f"PostgreSQL crashes after {at} steps")
                    cluster.crash()
                    cluster = None
                time.sleep(0.05)
        finally:
            kill(process)
        said.seek(0)
        text = said.read()
    with log.open("a") as file:
        file.write(text)
    return Attempt(process.returncode, text.strip(), time.monotonic() - began)


def drill(cluster: Cluster, ground: Ground) -> Iterator[Verdict]:
    """The whole drill; yields what holds and what does not."""
    scratch, home, log, run, steps = (
        ground.scratch,
        ground.home("home"),
        ground.log("home"),
        ground.options,
        ground.steps,
    )
    cluster.start()
    for database in (PREFECT, MLFLOW):
        cluster.create(database)
    servers = Servers(cluster, scratch, free_port(), free_port())
    with servers.running() as processes:
        client = servers.client()
        broken = attempt(home, log, client, "run", *run, cluster=cluster, at=steps // 2)
        yield _without("PostgreSQL crashes on the way: one line, exit code 4", broken)
        known = steps_finished(events(home))
        away = attempt(home, log, client, "run", *run)
        yield _without("PostgreSQL away from the start: one line, exit code 4", away)
        cluster.start()
        again = attempt(home, log, client, "run", *run)
        detail = f"exit code {again.code}, {known} of {steps} steps were there, {again.seconds:.0f} s"
        yield Verdict("PostgreSQL back: the same command carries on", again.code == 0, detail)
        yield from as_undisturbed(ground, home)
        for number in sorted(round_versions(home)):
            code = attempt(home, log, client, "audit", str(number), "--quiet").code
            yield Verdict(f"the audit of round {number} passes", code == 0, f"exit code {code}")
        yield from recorded(cluster, home)
        lived = [name for name, process in processes.items() if process.poll() is None]
        yield Verdict("both servers' processes lived through it", len(lived) == 2, ", ".join(lived))
    cluster.stop_whatever()
    found = files_with(scratch, cluster.password.encode(), cluster.folder)
    yield Verdict("the password is in no file but PostgreSQL's", not found, ", ".join(found))


def _without(claim: str, found: Attempt) -> Verdict:
    last = found.said.splitlines()[-1] if found.said else "nothing said"
    holds = found.code == SERVICE_GONE and found.one_line
    return Verdict(claim, holds, f"exit code {found.code} after {found.seconds:.0f} s: {last}")


def recorded(cluster: Cluster, home: Path) -> Iterator[Verdict]:
    """What both databases hold, and what the home does not."""
    flows = dict(cluster.ask(PREFECT, "SELECT state_type::text, count(*) FROM flow_run GROUP BY 1"))
    tasks = cluster.ask(PREFECT, "SELECT count(*) FROM task_run")[0][0]
    detail = ", ".join(f"{count} {state.lower()}" for state, count in sorted(flows.items()))
    yield Verdict("no flow run is left under way", flows.keys() <= ENDED, detail)
    yield Verdict(
        "Prefect's runs are rows of PostgreSQL", flows.get("COMPLETED", 0) > 0, f"flow runs {detail}; {tasks} task runs"
    )
    versions = set(round_versions(home).values())
    rows = cluster.ask(MLFLOW, "SELECT value, run_uuid FROM tags WHERE key = 'policylong.version'")
    told = {version for version, _ in rows} & versions
    yield Verdict(
        "MLflow's runs are rows of PostgreSQL", bool(versions) and told == versions, f"{len({r for _, r in rows})} runs"
    )
    files = [name for name in ("prefect/prefect.db", "mlflow/mlflow.db") if (home / name).exists()]
    yield Verdict("neither has a database in the home", not files, ", ".join(files))


def files_with(folder: Path, secret: bytes, ours: Path) -> list[str]:
    """Files below a folder that hold a secret, those of PostgreSQL itself left out."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_relative_to(ours))
    return [path.relative_to(folder).as_posix() for path in paths if secret in path.read_bytes()]


def main(given: Sequence[str] | None = None) -> int:
    """Runs the drill; 0 when every claim holds, else 1."""
    chosen = arguments(__doc__ or "").parse_args(given)
    scratch = scratch_of(chosen)
    scratch.chmod(0o711)
    cluster = Cluster.make(scratch / "postgres")
    try:
        ground = ground_of(chosen, usual=("--preset", "quickstart-small"))
        return conclude(ground, drill(cluster, ground), keep=chosen.keep)
    finally:
        cluster.stop_whatever()


if __name__ == "__main__":
    sys.exit(main())
