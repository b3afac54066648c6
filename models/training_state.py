"""Checkpoints of a training run that are believed only when every file is what its listing says.

The Trainer writes weights as safetensors and loads optimizer, schedule and random state with ``weights_only=True``.
A listing of digests is written beside them when a checkpoint is complete; one without it (the run was killed while
writing) or with a file that differs is removed, and the run goes on from the one before.
"""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from storage.digests import canonical_json, digest_files
from storage.errors import IntegrityError

LISTING = "listing.json"
ELAPSED = "elapsed_seconds"
_NAME = re.compile(r"checkpoint-(\d+)")


def seal(folder: Path) -> None:
    """Writes the listing of a finished checkpoint, atomically and last."""
    temporary = folder / f".{LISTING}"
    temporary.write_bytes(canonical_json(digest_files(folder, _names(folder))))
    temporary.replace(folder / LISTING)


def is_sound(folder: Path) -> bool:
    """Whether a checkpoint has a listing and every file is what it says."""
    listing = folder / LISTING
    if not listing.is_file():
        return False
    found = canonical_json(digest_files(folder, _names(folder)))
    return listing.read_bytes() == found


def last_sound_checkpoint(run: Path) -> Path | None:
    """The checkpoint with the most steps that is sound; incomplete and damaged ones are removed."""
    folders = [path for path in run.glob("checkpoint-*") if path.is_dir() and _NAME.fullmatch(path.name)]
    best: Path | None = None
    for folder in sorted(folders, key=steps_of, reverse=True):
        if best is None and is_sound(folder):
            best = folder
        elif best is None:
            shutil.rmtree(folder)
    return best


def steps_of(folder: Path) -> int:
    """Optimizer steps behind a checkpoint, from its folder's name."""
    match = _NAME.fullmatch(folder.name)
    if match is None:
        raise IntegrityError(f"{folder} is not a checkpoint of a training run.")
    return int(match[1])


def elapsed_of(folder: Path) -> float:
    """Seconds of training behind a sound checkpoint."""
    return float((folder / ELAPSED).read_text())


class SealCheckpoints(TrainerCallback):
    """Seals each checkpoint once the Trainer has written it, with the seconds since ``start`` (monotonic clock)."""

    def __init__(self, start: float) -> None:
        self._start = start

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the Trainer after a checkpoint was written."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / ELAPSED).write_text(f"{time.monotonic() - self._start:.3f}\n")
        seal(folder)


def _names(folder: Path) -> list[str]:
    return [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (LISTING, f".{LISTING}")
    ]
