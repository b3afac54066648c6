"""The record of an installation in its home: what was started, where it answers, and what went wrong.

standing/installation.json     there while something is up, or was not taken down after a crash
standing/<service>.log         what the services print
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import storage.errors
from flows.standing.processes import carries, same_process
from storage.errors import PolicylongError, ServiceError
from storage.files import read_json, write_json
from storage.home import Home

RECORD = "standing/installation.json"


class Service(BaseModel):
    """One process that was started."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    pid: int
    started: float = Field(description="Start time of the process, Unix time in seconds.")
    restarts: int = Field(0, description="How often it ended by itself and was started again.")


class Failure(BaseModel):
    """Why an installation did not come up, or ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(description="Class of the error in storage.errors.")
    message: str
    hint: str = ""

    @classmethod
    def of(cls, error: PolicylongError) -> Failure:
        """The record of an error."""
        return cls(kind=type(error).__name__, message=error.message, hint=error.hint)

    def error(self) -> PolicylongError:
        """The error that was recorded."""
        kind = getattr(storage.errors, self.kind, ServiceError)
        made: PolicylongError = kind(self.message, hint=self.hint)
        return made


class Installation(BaseModel):
    """An installation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(description="Mark of its processes.")
    version: str = Field(description="Version of policylong.")
    state: Literal["starting", "up", "failed"]
    pid: int = Field(description="Process that started the others and watches them.")
    started: float = Field(description="Start time of that process, Unix time in seconds.")
    prefect: str = Field(description="Address of Prefect's pages.")
    mlflow: str = Field(description="Address of MLflow's pages, or its tracking URI.")
    pools: tuple[str, ...] = Field(description="Work pools that have a worker here.")
    services: tuple[Service, ...] = ()
    failure: Failure | None = None

    @property
    def lives(self) -> bool:
        """Whether the process that watches the others is there."""
        return same_process(self.pid, self.started) or carries(self.pid, self.id)

    @property
    def api(self) -> str:
        """Address of Prefect's API."""
        return f"{self.prefect}/api"


def read_installation(home: Home) -> Installation | None:
    """The installation on record; ``None`` when nothing was started, or the record can't be read."""
    path = home / RECORD
    if not path.is_file():
        return None
    try:
        return Installation.model_validate(read_json(path))
    except (ValidationError, PolicylongError):
        return None


def standing(home: Home) -> Installation | None:
    """The installation of a home, when it is up."""
    found = read_installation(home)
    return found if found is not None and found.state == "up" and found.lives else None


def write_installation(home: Home, installation: Installation) -> None:
    """Replaces the record."""
    write_json(home / RECORD, installation.model_dump(mode="json"))


def forget_installation(home: Home) -> None:
    """Removes the record."""
    (home / RECORD).unlink(missing_ok=True)


def log_path(home: Home, service: str) -> Path:
    """Where a service's output goes."""
    return home.folder("standing") / f"{service}.log"
