"""Files that are either whole or not there: written under a temporary name, fsynced, renamed."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from storage.errors import IntegrityError, ResourceError

_MACHINE = "@" + re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:48]
_FOREIGN_SECONDS = 86_400.0
"""Longest that a file of another machine may be under way; writing one takes seconds. Ours."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full disk or quota into a clear error that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ResourceError(
                f"the disk is full: {path} could not be written ({error.strerror}).",
                hint="Free space (policylong doctor shows how much there is) and run the same command again.",
            ) from error
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside ``path``; when the block ends well, the file is fsynced and renamed to ``path``."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(path)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            fsync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> int:
    """Removes the half-written files that killed processes left below a folder; returns how many there were."""
    swept = 0
    for path in folder.rglob(".*.tmp"):
        if writer_is_gone(path):
            path.unlink(missing_ok=True)
            swept += 1
    return swept


def temporary_name(path: Path) -> Path:
    """The name under which this process writes a file: machine and process are in it, since machines share a home."""
    return path.with_name(f".{path.name}.{_MACHINE}.{os.getpid()}.tmp")


def writer_is_gone(temporary: Path) -> bool:
    """Whether the process that wrote under a temporary name has ended.

    Of another machine's process nothing is known here: its file counts as left once it is a day old.
    """
    *_, machine, writer, _ending = ("", "", *temporary.name.split("."))
    if not writer.isdigit():
        return False
    if machine.startswith("@") and machine != _MACHINE:
        with suppress(FileNotFoundError):
            return time.time() - temporary.stat().st_mtime > _FOREIGN_SECONDS
        return False
    return not _alive(int(writer))


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def fsync_folder(folder: Path) -> None:
    """Makes the entries of a folder durable (a rename is lost otherwise when the power fails)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a whole file, or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON for people and programs (indented, sorted keys), or nothing."""
    write_bytes(
        path, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()
    )


def read_json(path: Path) -> Any:
    """Reads JSON; raises ``IntegrityError`` naming the file when it is missing or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise IntegrityError(f"{path} is missing.", hint="policylong status shows what is there.") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise IntegrityError(
            f"{path} is not valid JSON ({error}).", hint="policylong audit names damaged files."
        ) from error


def place(source: Path, target: Path) -> None:
    """Makes ``target`` the same file as ``source``: a hard link where the file system allows one, else a copy."""
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            return
        temporary = temporary_name(target)
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
