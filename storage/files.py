"""Files that are either whole or not there: written under a temporary name, fsynced, renamed."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.errors import IntegrityError, ResourceError


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
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
        writer = path.name.rsplit(".", 2)[-2]
        if writer.isdigit() and not _alive(int(writer)):
            path.unlink(missing_ok=True)
            swept += 1
    return swept


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
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
