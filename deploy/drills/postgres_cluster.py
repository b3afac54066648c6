"""A PostgreSQL of one's own for a drill: in a folder, on loopback, with a password that nobody chose.

    cluster = Cluster.make(folder)          # initdb; raises SystemExit where PostgreSQL is not installed
    cluster.start(); cluster.create("prefect"); cluster.url("prefect", "asyncpg"); cluster.crash(); cluster.start()

PostgreSQL refuses to run as root: started by root, its programs run as user ``postgres``, which Debian's package makes.
The password is in the environment of those that connect and on no command line.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INSTALLED = "/usr/lib/postgresql"
"""Where Debian puts the programs of each version, outside PATH."""
OWNER = "policylong"
HOST = "127.0.0.1"


def find_program(name: str) -> Path | None:
    """A program of PostgreSQL: on PATH, else the newest that Debian's packages brought."""
    if found := shutil.which(name):
        return Path(found)
    versions = sorted(Path(INSTALLED).glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    return versions[-1] if versions else None


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Cluster:
    """One PostgreSQL server and its data."""

    folder: Path
    port: int
    pg_ctl: Path
    user: str | None
    """User that the programs run as; ``None``: this one."""
    password: str = field(repr=False, default="")

    @classmethod
    def make(cls, folder: Path) -> Cluster:
        """Makes an empty cluster in a new folder; raises ``SystemExit`` naming what is missing."""
        programs = {name: find_program(name) for name in ("initdb", "pg_ctl")}
        missing = [name for name, path in programs.items() if path is None]
        if missing:
            raise SystemExit(f"error: no {' and no '.join(missing)} found. Debian: apt-get install postgresql")
        initdb, pg_ctl = programs["initdb"], programs["pg_ctl"]
        assert initdb is not None
        assert pg_ctl is not None
        folder.mkdir(parents=True, mode=0o700)
        user = None if os.geteuid() else "postgres"
        made = cls(folder, free_port(), pg_ctl, user, os.environ.get("POSTGRES_PASSWORD") or secrets.token_hex(16))
        word = folder / "password"
        word.write_text(made.password)
        word.chmod(0o600)
        if user:
            owner = pwd.getpwnam(user)
            for path in (folder, word):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"]
        made._run([str(initdb), "-D", str(made.data), "-U", OWNER, f"--pwfile={word}", *options])
        word.unlink()
        with (made.data / "postgresql.conf").open("a") as settings:
            settings.write(f"listen_addresses = '{HOST}'\nport = {made.port}\nunix_socket_directories = ''\n")
        return made

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    def start(self) -> None:
        """Starts the server and waits until it takes connections."""
        self._run([str(self.pg_ctl), "-D", str(self.data), "-l", str(self.folder / "server.log"), "-w", "start"])

    def stop(self, mode: str = "fast") -> None:
        """Ends the server; ``mode`` is that of ``pg_ctl stop``."""
        self._run([str(self.pg_ctl), "-D", str(self.data), "-m", mode, "-w", "stop"])

    def crash(self) -> None:
        """Ends the server at once, without a checkpoint: it recovers from its log when it starts again."""
        self.stop("immediate")

    def stop_whatever(self) -> None:
        """Ends the server where it runs."""
        if (self.data / "postmaster.pid").exists():
            self.stop()

    def url(self, database: str, driver: str) -> str:
        """Address of a database for SQLAlchemy, with the password in it."""
        return f"postgresql+{driver}://{OWNER}:{self.password}@{HOST}:{self.port}/{database}"

    def create(self, database: str) -> None:
        """Makes an empty database."""
        self.ask("postgres", f'CREATE DATABASE "{database}"')

    def ask(self, database: str, question: str) -> list[tuple[Any, ...]]:
        """The rows that a statement gives."""
        import psycopg

        given: dict[str, Any] = {"host": HOST, "port": self.port, "user": OWNER, "password": self.password}
        with psycopg.connect(**given, dbname=database, autocommit=True) as connection:
            cursor = connection.execute(question.encode())
            return list(cursor) if cursor.description else []

    def _run(self, command: Sequence[str]) -> None:
        # pg_ctl's server would keep a pipe open for as long as it lives.
        with (self.folder / "commands.log").open("ab") as log:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, **self._identity()
            )
        if done.returncode:
            said = (self.folder / "commands.log").read_text(errors="replace").strip().splitlines()
            raise SystemExit(f"error: {Path(command[0]).name} failed: {said[-1] if said else done.returncode}")

    def _identity(self) -> dict[str, Any]:
        if self.user is None:
            return {}
        owner = pwd.getpwnam(self.user)
        return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
