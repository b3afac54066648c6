"""What interrupted work left behind: checkpoints of trainings, half-written files, exports on their way to a hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from storage.files import writer_is_gone
from storage.home import Home
from tasks.retention.plan import Keep, Removal, sized

AREAS = ("work", "checkpoints", "versions", "corpora", "policies", "campaigns", "reports", "tombstones")


def training_leftovers(home: Home, keep: Keep, stays: list[str]) -> Iterator[Removal]:
    """Checkpoints of trainings: of one that goes on, all but the newest whole one; of a finished one, everything."""
    for folder in sorted((home / "work/train").glob("*")):
        if any((home / "checkpoints/train").glob(f"{folder.name}*.json")):
            yield _folder(home, folder, "the training is finished")
        elif keep.unfinished:
            yield _folder(home, folder, "the training was not finished")
        else:
            stays.append(f"the newest checkpoint of training {folder.name[:12]}, which is not finished")
            for old in _older_checkpoints(folder):
                yield _folder(home, old, "a newer checkpoint of the same training is whole")


def _older_checkpoints(run: Path) -> list[Path]:
    """Checkpoints before the newest whole one."""
    from models.training_state import is_sound, steps_of

    found = sorted((path for path in run.glob("checkpoint-*") if path.is_dir()), key=steps_of, reverse=True)
    for place, folder in enumerate(found[:-1]):
        if is_sound(folder):
            return found[place + 1 :]
    return []


def half_written(home: Home) -> Iterator[Removal]:
    """Temporary files whose writer is gone."""
    files = {}
    for area in AREAS:
        for path in sorted((home / area).rglob(".*.tmp")):
            if writer_is_gone(path):
                files[path.relative_to(home.path).as_posix()] = sized(path)
    yield Removal(kind="half-written files", uri="work", files=files, reason="the process that wrote them is gone")


def interrupted_pushes(home: Home) -> Iterator[Removal]:
    """Exports that were on their way to a hub."""
    for folder in sorted((home / "work/push").glob("*")):
        yield _folder(home, folder, "an interrupted push; the same push makes it again")


def _folder(home: Home, folder: Path, reason: str) -> Removal:
    uri = folder.relative_to(home.path).as_posix()
    files = {p.relative_to(home.path).as_posix(): sized(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    kind = "training checkpoint" if uri.startswith("work/train") else "unfinished push"
    return Removal(kind=kind, uri=uri, files=files, reason=reason)
