"""What every command knows: its home folder, and how to get ready for running flows in it."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from flows.environment import prepare
from storage.errors import InputError
from storage.home import Home

DEBUG = "POLICYLONG_DEBUG"
"""Environment variable: set to 1, errors come with their traceback and warnings are shown."""


@dataclass(frozen=True, slots=True)
class Session:
    """The global options of one call of the command line."""

    home: Path
    verbose: bool = False

    def prepared(self) -> Session:
        """Sets the environment; to be called before anything that imports Prefect, MLflow or a model library."""
        prepare(self.home, verbose=self.verbose)
        if not (debug() or self.verbose):
            warnings.simplefilter("ignore")
            # Prefect tells on stderr of every line of its log that a server did not take.
            logging.raiseExceptions = False
        return self

    def open(self) -> Home:
        """The home, made when it is not there."""
        self.prepared()
        return Home.open(self.home)

    def existing(self) -> Home:
        """The home; raises ``InputError`` when there is none, since the command has nothing to look at."""
        if not (self.home / "home.json").is_file():
            raise InputError(
                f"there is no home in {self.home}.", hint="policylong run makes one; or give another --home."
            )
        return self.open()

    @contextmanager
    def running(self) -> Iterator[Home]:
        """The home with a Prefect server to run flows against, for the time of the block."""
        from flows.server import prefect_server

        home = self.open()
        if configured := os.environ.get("PREFECT_API_URL"):
            from flows.standing.api import PrefectApi

            PrefectApi(configured).check()
        with prefect_server(home) as address:
            page = address.removesuffix("/api")
            line = f"home {home.path} · Prefect's page while this runs: {page}"
            messages().print(line, style="dim", highlight=False, markup=False)
            yield home


def debug() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get(DEBUG, "") not in ("", "0")


def messages() -> Console:
    """Where everything but results is printed: stderr."""
    return Console(stderr=True, soft_wrap=True)


def results() -> Console:
    """Where results are printed: stdout."""
    return Console()
