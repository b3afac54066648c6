"""Pushing a version to a dataset repository of a hub: the Parquet export with its card, in one commit.

A repository that holds something else is refused; one that holds an export has its files replaced, so that no file of
an earlier version stays behind. The token comes from the environment alone, and is never printed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.digests import short
from storage.errors import ConfigError, InputError, PolicylongError, ServiceError
from storage.home import Home
from storage.versions import resolve_version
from tasks.exporting.exporting import export_version
from tasks.exporting.noted import note_push
from tasks.exporting.record import RECORD

TOKEN = "HF_TOKEN"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_OF_NOBODY = {".gitattributes", "README.md"}
"""Files that a hub puts into a new repository itself."""


def push_version(home: Home, version: str, repo: str, *, private: bool = False) -> str:
    """Pushes a version, given as ``resolve_version`` takes it, and returns the address of the commit.

    The repository is made when it is missing, ``private`` or not. Raises ``ConfigError`` for a name that is none and
    without a token, ``InputError`` for a repository that holds something else, ``ServiceError`` when the hub refuses or
    does not answer; what the hub has then is what it had before.
    """
    if not _NAME.fullmatch(repo):
        raise ConfigError(f"{repo!r} names no repository (--repo).", hint="Give OWNER/NAME.")
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise ConfigError(
            f"there is no token: {TOKEN} is not set, and it is read from nowhere else.",
            hint="Make one with write access in the hub's settings and set it for this command.",
        )
    known = resolve_version(home, version)
    name = short(known, 16)
    folder = home / f"work/push/{name}"
    with home.lock(f"push-{name}"):
        export_version(home, known, folder, "parquet")
        note_push(home, known, repo)
        address = _upload(repo, folder, f"Dataset version {known}", token, private)
        shutil.rmtree(folder)
    return address


def _upload(repo: str, folder: Path, message: str, token: str, private: bool) -> str:
    from huggingface_hub import HfApi

    with _hub(repo, token):
        hub = HfApi(token=token, library_name="policylong")
        hub.create_repo(repo, repo_type="dataset", private=private or None, exist_ok=True)
        _check_ours(repo, set(hub.list_repo_files(repo, repo_type="dataset")))
        commit = hub.upload_folder(
            repo_id=repo, repo_type="dataset", folder_path=folder, commit_message=message, delete_patterns="*"
        )
    return str(commit.commit_url)


def _check_ours(repo: str, files: set[str]) -> None:
    strange = sorted(files - _OF_NOBODY)
    if strange and RECORD not in files:
        raise InputError(
            f"{repo} holds other files ({', '.join(strange[:3])}{', …' if len(strange) > 3 else ''}) and no {RECORD}:"
            " pushing would replace them.",
            hint="Give another --repo.",
        )


@contextmanager
def _hub(repo: str, token: str) -> Iterator[None]:
    """Turns what the hub's client raises into one line."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    # Its own errors derive from those of whichever HTTP client a release of the library uses.
    network: tuple[type[Any], ...] = (*HfHubHTTPError.__bases__, OSError)
    try:
        yield
    except PolicylongError:
        raise
    except OfflineModeIsEnabled as error:
        raise ServiceError(
            f"{repo} can't be pushed: HF_HUB_OFFLINE is set.", hint="Unset it for this command."
        ) from error
    except HFValidationError as error:
        raise ConfigError(f"{repo!r} names no repository (--repo).", hint="Give OWNER/NAME.") from error
    except HfHubHTTPError as error:
        raise ServiceError(f"the hub refused to take {repo}: {_reason(error, token)}.", hint=_hint(error)) from error
    except network as error:
        raise ServiceError(
            f"the hub does not answer ({type(error).__name__}: {_line(error, token)}).",
            hint="Check the network and HF_ENDPOINT; the same command carries on.",
        ) from error


def _status(error: Any) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _reason(error: Any, token: str) -> str:
    status = _status(error)
    message = getattr(error, "server_message", None) or _line(error, token)
    return f"{status}, {message.replace(token, '…')}" if status else message


def _line(error: Exception, token: str) -> str:
    return " ".join(str(error).split())[:200].rstrip(".").replace(token, "…")


def _hint(error: Any) -> str:
    if _status(error) in (401, 403):
        return f"{TOKEN} needs write access to the repository."
    return "Check --repo and HF_ENDPOINT; the same command tries again."
