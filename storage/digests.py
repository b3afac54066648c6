"""Digests: the only identity that anything has.

Everything is SHA-256 in lower-case hex. JSON is digested in one canonical form (sorted keys, no blanks, UTF-8, no
NaN), so the same content has the same digest on every machine and in every home.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def digest_bytes(data: bytes) -> str:
    """SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def digest_text(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes."""
    return digest_bytes(text.encode("utf-8"))


def digest_file(path: Path) -> str:
    """SHA-256 of a file, read in blocks into one buffer."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one byte string that stands for a JSON value.

    Raises ``ValueError`` for NaN and infinities and ``TypeError`` for what JSON does not know.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")


def digest_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return digest_bytes(canonical_json(value))


def digest_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of each named file of a folder; names use ``/`` whatever the system."""
    return {name: digest_file(folder / name) for name in sorted(names)}


def digest_listing(listing: Mapping[str, str]) -> str:
    """One digest for a folder given as {name: sha256}."""
    return digest_json(dict(listing))


def short(digest: str, length: int = 12) -> str:
    """The first characters of a digest, for people to read."""
    return digest[:length]
