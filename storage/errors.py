"""Every error a user can meet, in one tree.

    PolicylongError
    ├── ConfigError          an option or preset that can't be right            exit 2
    ├── InputError           a file, folder or row of the user's that can't be  exit 2
    │   └── QuarantineError  too many rows refused
    ├── PolicyError          a checkpoint that can't be used (missing, NaN, …)  exit 3
    ├── IntegrityError       bytes that are not what their digest says          exit 1
    ├── ServiceError         Qdrant, MLflow, Prefect or a hub does not answer   exit 4
    │                        (worth a retry)
    ├── ResourceError        disk or memory ran out                             exit 5
    ├── BusyError            another process holds the lock                     exit 6
    └── StoppedError         the user asked to stop                             exit 130

A message names the round, file or row, says what was expected and gives the next command. The command line prints
it as one line and leaves with the exit code above; a traceback is a defect of ours.
"""

from __future__ import annotations

from typing import ClassVar

from storage.addresses import without_credentials


class PolicylongError(Exception):
    """Base of the tree.

    ``message`` says what is wrong and what was expected; ``hint`` is the next thing to do, often a command. Addresses
    in them lose user and password: an error ends in logs, pages and records.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = without_credentials(message)
        self.hint = without_credentials(hint)
        super().__init__(f"{self.message} {self.hint}".strip())

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[PolicylongError], message: str, hint: str) -> PolicylongError:
    return kind(message, hint=hint)


class ConfigError(PolicylongError):
    """An option, preset or combination of options that can't be right."""

    exit_code = 2


class InputError(PolicylongError):
    """A file, folder or row given by the user that can't be used."""

    exit_code = 2


class QuarantineError(InputError):
    """More rows were refused than the configured share allows."""


class PolicyError(PolicylongError):
    """A checkpoint that can't be used: missing, damaged, NaN, or not the expected parent."""

    exit_code = 3


class IntegrityError(PolicylongError):
    """Bytes on disk that are not what their digest says."""

    exit_code = 1


class ServiceError(PolicylongError):
    """A service (Qdrant, MLflow, Prefect, a model hub) does not answer; the same command may work later."""

    exit_code = 4


class ResourceError(PolicylongError):
    """The disk or the memory ran out; the same command carries on once there is room."""

    exit_code = 5


class BusyError(PolicylongError):
    """Another process holds the lock of this home, round or index."""

    exit_code = 6


class StoppedError(PolicylongError):
    """The user asked to stop; what is finished stays finished."""

    exit_code = 130
