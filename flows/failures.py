"""Every error that reaches the command line, as one line and an exit code."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Iterator

import typer
from typer.exceptions import TyperException

from flows.session import DEBUG, debug, messages
from storage.addresses import without_credentials
from storage.errors import ConfigError, PolicylongError, ResourceError, ServiceError, StoppedError
from tasks.reporting.visible import visible_line

INTERRUPTED = 130
UNEXPECTED = 70
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SERVICES = ("prefect", "httpx", "httpcore", "mlflow", "qdrant_client", "requests", "sqlalchemy", "sqlite3")


def report(error: BaseException) -> int:
    """Prints what went wrong as one line on stderr and gives the exit code."""
    if isinstance(error, typer.Exit):
        return int(error.exit_code)
    if isinstance(error, KeyboardInterrupt | typer.Abort) or any(isinstance(e, StoppedError) for e in _chain(error)):
        _print("stopped; run the same command to carry on")
        return INTERRUPTED
    if debug():
        traceback.print_exception(error)
    known = _known(error)
    if known is None:
        _print(
            f"error: {type(error).__name__}: {error}. This is a defect of policylong;"
            f" {DEBUG}=1 before the same command shows where it happened."
        )
        return UNEXPECTED
    hint = f" {known.hint}" if known.hint else ""
    _print(f"error: {known.message}{hint}")
    return known.exit_code


def _known(error: BaseException) -> PolicylongError | None:
    """The error of our tree that stands for this one: itself, one it was raised from, or a translation."""
    if isinstance(error, TyperException):
        command = getattr(getattr(error, "ctx", None), "command_path", "policylong")
        message = getattr(error, "format_message", error.__str__)()
        return ConfigError(f"{message.rstrip('.')}.", hint=f"See: {command} --help")
    chain = list(_chain(error))
    for link in chain:
        if isinstance(link, PolicylongError):
            return link
    for link in chain:
        translated = _translated(link)
        if translated is not None:
            return translated
    return None


def _translated(error: BaseException) -> PolicylongError | None:
    if type(error).__name__ == "ValidationError" and hasattr(error, "errors"):
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "configuration"
        return ConfigError(f"{key}: {first['msg']}.", hint="See: policylong config show")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return ResourceError(
            "the memory ran out.", hint="policylong doctor shows how much there is; lower the batch sizes."
        )
    text = str(error).lower()
    if (isinstance(error, OSError) and error.errno in _DISK_FULL) or "database or disk is full" in text:
        return ResourceError(f"the disk is full ({error}).", hint="Free space and run the same command again.")
    answered = getattr(getattr(error, "response", None), "status_code", None)
    if type(error).__name__ == "PrefectHTTPStatusError" and isinstance(answered, int) and answered >= 500:
        return ServiceError(
            f"Prefect's server answered {answered}: it runs, but its database does not answer or refuses.",
            hint="Look at both, then run the same command again: what is finished is found.",
        )
    if type(error).__module__.split(".")[0] in _SERVICES:
        return ServiceError(
            f"{type(error).__module__.split('.')[0]} failed: {type(error).__name__}: {error}.",
            hint="Run the same command again; policylong doctor looks at the services.",
        )
    if isinstance(error, OSError) and error.filename:
        return ResourceError(f"{error.filename}: {error.strerror}.", hint="Check the path and its permissions.")
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _print(line: str) -> None:
    style = "bold red" if line.startswith("error") else "yellow"
    # A file's name or a row of a corpus may be in it, and a library's message may name an address.
    shown = visible_line(" ".join(without_credentials(line).split()))
    messages().print(shown, style=style, highlight=False, markup=False)
    sys.stderr.flush()
