"""What is done stays done: one small file per finished step, believed only after its output was hashed again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from storage.digests import digest_json, short
from storage.errors import IntegrityError
from storage.files import read_json, write_json
from storage.home import Home
from storage.refs import Ref
from storage.tables import check_ref, check_unchanged


class StepKey(BaseModel):
    """What a step's output depends on: its name, the version of its code, the digests of its inputs, its config."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    code_version: int
    inputs: dict[str, Any]
    config: dict[str, Any]

    @property
    def digest(self) -> str:
        """The key: SHA-256 over all of it."""
        return digest_json(self.model_dump(mode="json"))


Refs = Mapping[str, Ref]


def checkpoint_path(key: StepKey) -> str:
    """Where the record of a finished step lies, relative to the home."""
    return f"checkpoints/{key.step}/{key.digest}.json"


def work_uri(key: StepKey, table: str) -> str:
    """Where a step writes one of its tables, relative to the home."""
    return f"work/{key.step}/{short(key.digest, 32)}-{table}.parquet"


def finished(home: Home, key: StepKey) -> dict[str, Ref] | None:
    """The refs a finished step recorded, after hashing every file again; ``None`` when it must run.

    A record that can't be read, or one whose file is missing or changed, is removed and noted in the journal.
    """
    path = home / checkpoint_path(key)
    if not path.exists():
        return None
    try:
        refs = {name: Ref.model_validate(value) for name, value in read_json(path)["refs"].items()}
        for ref in refs.values():
            check_ref(home.path, ref)
    except (IntegrityError, KeyError, ValueError) as error:
        home.journal({"event": "distrusted", "step": key.step, "key": key.digest, "why": str(error)})
        path.unlink(missing_ok=True)
        return None
    return refs


def run_step(home: Home, key: StepKey, produce: Callable[[], Refs], *, read: Iterable[Ref] = ()) -> dict[str, Ref]:
    """The refs of a step: recorded ones when it is finished, else those of ``produce()``, recorded before they are
    returned.

    ``read`` are the tables that ``produce`` reads. They are hashed first, as the key names them by their digests: made
    from other bytes, the step's output would be recorded under a key that is not its own. Raises ``IntegrityError``
    naming a file that is missing or was changed.
    """
    refs = finished(home, key)
    if refs is not None:
        return refs
    for ref in read:
        check_unchanged(home.path, ref)
    home.journal({"event": "started", "step": key.step, "key": key.digest})
    began = time.perf_counter()
    made = dict(produce())
    seconds = round(time.perf_counter() - began, 3)
    record_step(home, key, made, seconds)
    return made


def record_step(home: Home, key: StepKey, refs: Refs, seconds: float) -> None:
    """Records that a step is finished: its files are in the home, and computing them took so many seconds."""
    write_json(
        home / checkpoint_path(key),
        {
            "key": key.model_dump(mode="json"),
            "refs": {name: ref.model_dump(mode="json") for name, ref in refs.items()},
            "seconds": seconds,
        },
    )
    home.journal({"event": "finished", "step": key.step, "key": key.digest, "seconds": seconds})


def seconds_of(home: Home, key: StepKey) -> float:
    """Wall-clock seconds that a finished step took when it ran; 0 when it has no record."""
    path = home / checkpoint_path(key)
    return float(read_json(path)["seconds"]) if path.exists() else 0.0
