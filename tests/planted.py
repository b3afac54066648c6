"""Things of an attacker's or a keeper's, planted in what a test uses, and the search for where they came out.

SECRETS            credentials in the environment; ``files_with`` finds them byte by byte
bomb(marker)       a pickle that makes a file when it is loaded
HOSTILE            text of a corpus that tries to be markup of a page, of rich, and of a terminal
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

WORD = "planted-word"
SECRETS = {
    "PREFECT_SERVER_API_AUTH_STRING": f"keeper:{WORD}-prefect",
    "PREFECT_API_AUTH_STRING": f"keeper:{WORD}-prefect",
    "MLFLOW_TRACKING_USERNAME": "keeper",
    "MLFLOW_TRACKING_PASSWORD": f"{WORD}-mlflow",
    "QDRANT_API_KEY": f"{WORD}-qdrant",
    "HF_TOKEN": f"hf_{WORD}-hub",
}
HOSTILE = "<script>alert(1)</script> [red]x[/red] \x1b[31m\x1b]0;title\x07 \u202eright to left {{ 7 * 7 }} | `tick`"


class Bomb:
    """An object whose pickle opens a file for writing when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


def bomb(marker: Path) -> bytes:
    """The pickle; ``marker`` is the file that is there once somebody has loaded it."""
    return pickle.dumps(Bomb(marker))


def files_with(folder: Path, words: Iterable[str] = (WORD,)) -> dict[str, str]:
    """{file: word} of the files below a folder that hold one of the words, in their bytes or their names."""
    found = {}
    for path in sorted(folder.rglob("*")):
        data = path.read_bytes() if path.is_file() else b""
        for word in words:
            if word.encode() in data or word in path.name:
                found[path.relative_to(folder).as_posix()] = word
    return found
