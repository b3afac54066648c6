"""Collecting garbage: a plan of what no kept version needs, and its removal, each thing behind its tombstone.

    plan = collect(home, Keep())                 # removes nothing
    plan = collect(home, Keep(), apply=True)

A thing's tombstone is written and synced before its first file goes. What makes the home believe in a thing goes first
(a step's record before its tables, a version's manifest before its files), so a removal that was killed leaves nothing
that looks whole, and the next one finishes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from storage.errors import BusyError, ConfigError
from storage.home import Home
from storage.manifests import MANIFEST
from storage.tombstones import Tombstone, write_tombstone
from tasks.progress import progress
from tasks.retention.leftovers import AREAS, half_written, interrupted_pushes, training_leftovers
from tasks.retention.needed import unneeded_policies, unneeded_versions, what_is_kept
from tasks.retention.plan import Keep, Plan, Removal, priced
from tasks.retention.tables import unneeded_tables


def collect(home: Home, keep: Keep, *, apply: bool = False) -> Plan:
    """What would be removed, and with ``apply`` its removal.

    Raises ``BusyError`` while anything runs in the home, ``InputError`` for an unknown campaign, ``ConfigError`` for
    options that contradict each other, ``IntegrityError`` for a manifest or record that can't be believed: what it
    needs can't be known then.
    """
    keep.check()
    with everything_locked(home):
        plan = planned(home, keep)
        if apply:
            _remove_all(home, plan)
            home.journal({"event": "gc", "files": plan.files, "bytes": plan.bytes})
            plan = plan.model_copy(update={"applied": True})
    return plan


def planned(home: Home, keep: Keep) -> Plan:
    """What ``collect`` would remove."""
    kept = what_is_kept(home, keep)
    stays = list(kept.stays)
    removals = [
        *unneeded_tables(home, kept, keep, stays),
        *training_leftovers(home, keep, stays),
        *unneeded_policies(home, kept),
        *(unneeded_versions(home, kept) if keep.versions else ()),
        *half_written(home),
        *interrupted_pushes(home),
    ]
    if kept.others and not keep.versions:
        stays.append(f"{len(kept.others)} versions that are not kept (--versions removes them)")
    return Plan(removals=priced(home, removals), stays=tuple(stays))


@contextmanager
def everything_locked(home: Home) -> Iterator[None]:
    """Holds every lock of the home; raises ``BusyError`` naming the first that another process holds."""
    with ExitStack() as stack:
        for path in sorted((home / "locks").glob("*.lock")):
            try:
                stack.enter_context(home.lock(path.stem))
            except BusyError as error:
                raise BusyError(
                    f"gc removes nothing while something runs: {path.stem} is held in {home.path}.",
                    hint="Wait for it, or look at policylong status.",
                ) from error
        yield


def _remove_all(home: Home, plan: Plan) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with progress("removing", total=plan.files, unit="files") as advance:
        for removal in plan.removals:
            stone = Tombstone(uri=removal.uri, kind=removal.kind, files=removal.files, reason=removal.reason, time=now)
            write_tombstone(home, stone)
            _remove(home, removal)
            advance(len(removal.files))


def _remove(home: Home, removal: Removal) -> None:
    folders = set[Path]()
    for name in sorted(removal.files, key=_order):
        path = home / name
        if ".." in path.parts or not path.is_relative_to(home.path):
            raise ConfigError(f"{name!r} leads out of the home folder.", hint="policylong audit names damaged records.")
        path.unlink(missing_ok=True)
        folders.add(path.parent)
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        _prune(home, folder)


def _order(name: str) -> tuple[bool, bool, str]:
    """Records of steps and manifests first."""
    return not name.startswith("checkpoints/"), not name.endswith(f"/{MANIFEST}"), name


def _prune(home: Home, folder: Path) -> None:
    """Removes a folder that became empty, and those above it that did, but no area of the home itself."""
    areas = {home / area for area in AREAS}
    while folder not in areas and folder.is_relative_to(home.path) and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
