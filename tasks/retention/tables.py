"""Tables of steps that no version shares, told apart by what became of them.

A step's record names the digests of its inputs, so records hang together: a step is *settled* when one of its tables is
published, or when a settled step read it. What a settled step left and no version shares is intermediate. What is not
settled belongs to a round that goes on, or was abandoned.

A table that a version or corpus shares (one file with two names) costs nothing: it stays, and its step stays finished.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from storage.corpora import list_corpora
from storage.digests import canonical_json
from storage.errors import IntegrityError
from storage.files import read_json
from storage.home import Home
from storage.manifests import Manifest
from storage.refs import Ref
from storage.tombstones import Removed
from storage.versions import version_uri
from tasks.retention.needed import Kept
from tasks.retention.plan import Keep, Removal, nodes_below, sized

INTERMEDIATE = "intermediate: what came of it is published"
UNKEPT = "of a version that is not kept"
ABANDONED = "of a round or corpus that was not finished"
NAMELESS = "no finished step names it"
UNREADABLE = "the step's record can't be read"
COUNTS = "counts"
"""Numbers that a step hands on: a few hundred bytes, for which no step is run again."""
_DIGEST = re.compile(rb"[0-9a-f]{64}")
_WRITTEN = re.compile(r"[0-9a-f]{32}-[\w-]+\.(parquet|arrow|json)")
"""Names that steps give to their tables (``storage.checkpoints.work_uri``)."""
_APART = ("train", "push")
"""Folders of ``work`` that hold no tables."""


@dataclass(frozen=True)
class StepRecord:
    """A finished step: its record's path below the home, the digests it read, the refs of what it made."""

    uri: str
    step: str
    inputs: frozenset[str]
    refs: tuple[Ref, ...]


def unneeded_tables(home: Home, kept: Kept, keep: Keep, stays: list[str]) -> Iterator[Removal]:
    """Tables of steps, grouped by step and reason, with their records."""
    records, broken = step_records(home)
    shared = _shared(home, kept, keep)
    settled, held = _reasons(home, records, kept, keep)
    groups: dict[tuple[str, str], dict[str, Removed]] = defaultdict(dict)
    removed, waiting, asked = set[str](), 0, 0
    for record in records:
        own = [ref for ref in record.refs if ref.table != COUNTS and _is_own(home, ref.uri, shared)]
        if not own:
            continue
        if record.uri in held:
            asked += 1
        elif record.uri in settled or keep.unfinished:
            removed.add(record.uri)
            reason = settled.get(record.uri, ABANDONED)
            groups[record.step, reason][record.uri] = sized(home / record.uri)
        else:
            waiting += 1
    needed = {ref.uri for record in records if record.uri not in removed for ref in record.refs}
    for record in records:
        reason = settled.get(record.uri, ABANDONED)
        for ref in record.refs if record.uri in removed else ():
            if ref.uri not in needed and (home / ref.uri).is_file():
                groups[record.step, reason][ref.uri] = sized(home / ref.uri, ref.sha256)
    named = needed | {ref.uri for record in records for ref in record.refs}
    for uri in _nameless(home, named, shared):
        groups[Path(uri).parts[1], NAMELESS][uri] = sized(home / uri)
    for uri in broken:
        groups[Path(uri).parts[1], UNREADABLE][uri] = sized(home / uri)
    if asked:
        names = ", ".join(kept.going_on)
        stays.append(f"{asked} steps behind a corpus that a run of {names} asks for (--unfinished removes them)")
    if waiting:
        stays.append(f"{waiting} steps of rounds or corpora that are not finished (--unfinished removes them)")
    for (step, reason), files in sorted(groups.items()):
        yield Removal(kind="tables", uri=f"work/{step}", files=dict(sorted(files.items())), reason=reason)


def step_records(home: Home) -> tuple[list[StepRecord], list[str]]:
    """Steps that left tables, and the paths of records that can't be read; results without tables are neither."""
    found: list[StepRecord] = []
    broken: list[str] = []
    for path in sorted((home / "checkpoints").glob("*/*.json")):
        uri = path.relative_to(home.path).as_posix()
        try:
            value: dict[str, Any] = read_json(path)
            if "refs" not in value:
                continue
            refs = tuple(Ref.model_validate(ref) for ref in value["refs"].values())
            digests = frozenset(match.decode() for match in _DIGEST.findall(canonical_json(value["key"]["inputs"])))
        except (IntegrityError, ValidationError, KeyError, TypeError, AttributeError):
            broken.append(uri)
            continue
        found.append(StepRecord(uri, path.parent.name, digests, refs))
    return found, broken


def _reasons(
    home: Home, records: Collection[StepRecord], kept: Kept, keep: Keep
) -> tuple[dict[str, str], frozenset[str]]:
    """Why each settled step's tables may go, by its record; and the records that a campaign that goes on asks for.

    A run begins with its corpus: without the steps behind it, it would read everything again.
    """
    corpora = {ref.sha256 for corpus in list_corpora(home) for ref in corpus.refs}
    remaining = [*kept.versions.values(), *(() if keep.versions else kept.others.values())]
    published = corpora | _digests(remaining)
    settled = dict.fromkeys(_settled(records, published | _digests(kept.others.values())), UNKEPT)
    settled |= dict.fromkeys(_settled(records, published), INTERMEDIATE)
    held = _settled(records, corpora) if kept.going_on and not keep.unfinished else set()
    return settled, frozenset(held)


def _digests(versions: Iterable[Manifest]) -> set[str]:
    """Digests of every file of some versions."""
    return {entry.sha256 for manifest in versions for entry in manifest.files.values()}


def _shared(home: Home, kept: Kept, keep: Keep) -> set[tuple[int, int]]:
    """Files of the versions that remain and of corpora."""
    remaining = [*kept.versions, *(() if keep.versions else kept.others)]
    return nodes_below([*(home / version_uri(version) for version in remaining), home / "corpora"])


def _settled(records: Collection[StepRecord], published: set[str]) -> set[str]:
    """Records of steps that a published table comes from."""
    makers: dict[str, list[StepRecord]] = defaultdict(list)
    for record in records:
        for ref in record.refs:
            makers[ref.sha256].append(record)
    todo = [record for record in records if any(ref.sha256 in published for ref in record.refs)]
    settled = {record.uri for record in todo}
    while todo:
        for digest in todo.pop().inputs:
            for maker in makers.get(digest, ()):
                if maker.uri not in settled:
                    settled.add(maker.uri)
                    todo.append(maker)
    return settled


def _is_own(home: Home, uri: str, shared: set[tuple[int, int]]) -> bool:
    """Whether a table takes room of its own, or is gone already (then its record is of no use)."""
    path = home / uri
    if not path.is_file():
        return True
    status = path.stat()
    return (status.st_dev, status.st_ino) not in shared


def _nameless(home: Home, named: set[str], shared: set[tuple[int, int]]) -> Iterator[str]:
    for folder in sorted((home / "work").glob("*")):
        for path in sorted(folder.glob("*")) if folder.name not in _APART else ():
            uri = path.relative_to(home.path).as_posix()
            if _WRITTEN.fullmatch(path.name) and uri not in named and _is_own(home, uri, shared):
                yield uri
