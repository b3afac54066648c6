"""Single changes to the record of a finished campaign, each with its undoing and with what an audit has to name.

A change is drawn by a seeded die. Files are replaced, never written in place: a copy of a home made of hard links
stays apart from its original, and the original is where a file is put back from.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.campaigns import Campaign, load_campaign
from storage.corpora import corpus_folder
from storage.files import read_json, write_json
from storage.home import Home
from storage.policies import RECORD, list_policies
from storage.tracking import DATABASE
from storage.versions import load_manifest, version_uri

COPIED = ("versions", "corpora", "policies", "campaigns", "checkpoints/train", "checkpoints/log-training")
WITNESSES = ("checkpoints/context-gain",)
_HEX = "0123456789abcdef"
Needles = tuple[str, ...]
Edit = tuple[str, tuple[Needles, ...]]
"""What was done, and for each thing that was changed the words that one failed finding has to say together."""


@dataclass(frozen=True, slots=True)
class Target:
    """A copy of a home, the original it is put right from, the campaign, and the files of its chain by area."""

    home: Home
    original: Path
    campaign: Campaign
    areas: dict[str, tuple[str, ...]]

    @property
    def database(self) -> Path:
        """MLflow's database of the copy."""
        return self.home / DATABASE


Kind = Callable[[Target, random.Random], AbstractContextManager[Edit]]
"""A change of one kind, made while its block runs."""


def copy_home(source: Path, target: Path) -> Home:
    """Hard links (copies, where the volume differs) of what an audit reads, and a copy of MLflow's database."""
    for folder in (*COPIED, *WITNESSES):
        for path in sorted((source / folder).rglob("*")) if (source / folder).is_dir() else ():
            if path.is_file():
                put_back(path, target / path.relative_to(source))
    shutil.copyfile(source / "home.json", target / "home.json")
    if (source / DATABASE).is_file():
        (target / DATABASE).parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(source / DATABASE)) as old, closing(sqlite3.connect(target / DATABASE)) as new:
            old.backup(new)
    return Home.open(target)


def put_back(original: Path, path: Path) -> None:
    """Makes ``path`` the original again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        os.link(original, path)
    except OSError:
        shutil.copyfile(original, path)


def target_of(home: Home, original: Path, name: str) -> Target:
    """The chain of a campaign: its rounds, their corpora, every policy of theirs, its records."""
    campaign = load_campaign(home, name)
    manifests = {record.version: load_manifest(home, record.version) for record in campaign.rounds}
    digests = {m.policy for m in manifests.values()} | {m.parent_policy for m in manifests.values()}
    digests |= {record.next_policy for record in campaign.rounds}
    policies = [record for record in list_policies(home) if record.digest in digests]
    trained = [path for path in _json(home, "checkpoints/train") if read_json(path)["result"]["version"] in manifests]
    numbers = {read_json(path)["result"]["policy"][:12] for path in trained}
    logged = [path for path in _json(home, "checkpoints/log-training") if read_json(path)["policy"] in numbers]
    areas = {
        "versions": [p for version in manifests for p in _files(home, version_uri(version))],
        "corpora": [
            p for corpus in {m.corpus for m in manifests.values()} for p in _files(home, corpus_folder(corpus))
        ],
        "policies": [f"{r.folder}/{file}" for r in policies for file in (*r.files, RECORD) if _inside(r.folder)],
        "campaign record": [f"campaigns/{name}.json"],
        "training records": [path.relative_to(home.path).as_posix() for path in (*trained, *logged)],
    }
    return Target(home, original, campaign, {area: tuple(sorted(files)) for area, files in areas.items() if files})


def _files(home: Home, folder: str) -> Iterator[str]:
    for path in (home / folder).rglob("*"):
        if path.is_file():
            yield path.relative_to(home.path).as_posix()


def _json(home: Home, folder: str) -> list[Path]:
    return sorted((home / folder).glob("*.json"))


def _inside(folder: str) -> bool:
    return not Path(folder).is_absolute()


@contextmanager
def _replaced(target: Target, uri: str, data: bytes | None) -> Iterator[None]:
    """A file with other bytes, or gone."""
    path = target.home / uri
    path.unlink(missing_ok=True)
    try:
        if data is not None:
            path.write_bytes(data)
        yield
    finally:
        if (target.original / uri).is_file():
            put_back(target.original / uri, path)
        else:
            path.unlink(missing_ok=True)


def _draw(target: Target, dice: random.Random, *, smallest: int = 1) -> tuple[str, bytes]:
    """A file of the chain with its bytes: first the area, then the file, so that few files count as much as many."""
    while True:
        uri = dice.choice(target.areas[dice.choice(sorted(target.areas))])
        data = (target.home / uri).read_bytes()
        if len(data) >= smallest:
            return uri, data


@contextmanager
def _byte(target: Target, dice: random.Random) -> Iterator[Edit]:
    uri, data = _draw(target, dice)
    place, other = dice.randrange(len(data)), dice.randrange(1, 256)
    changed = bytearray(data)
    changed[place] = (changed[place] + other) % 256
    with _replaced(target, uri, bytes(changed)):
        yield f"byte {place} of {uri}: {data[place]} → {changed[place]}", ((uri,),)


@contextmanager
def _deleted(target: Target, dice: random.Random) -> Iterator[Edit]:
    files = [uri for area, names in target.areas.items() if area != "training records" for uri in names]
    uri = dice.choice([f"campaigns/{target.campaign.name}.json", dice.choice(files), dice.choice(files)])
    with _replaced(target, uri, None):
        yield f"{uri} deleted", ((uri,),)


@contextmanager
def _truncated(target: Target, dice: random.Random) -> Iterator[Edit]:
    uri, data = _draw(target, dice)
    length = dice.randrange(len(data))
    with _replaced(target, uri, data[:length]):
        yield f"{uri} cut to {length} of {len(data)} bytes", ((uri,),)


@contextmanager
def _swapped(target: Target, dice: random.Random) -> Iterator[Edit]:
    one, first = _draw(target, dice)
    while True:
        two, second = _draw(target, dice)
        if first != second:
            break
    with _replaced(target, one, second), _replaced(target, two, first):
        yield f"{one} and {two} swapped", ((one,), (two,))


@contextmanager
def _added(target: Target, dice: random.Random) -> Iterator[Edit]:
    area = dice.choice([name for name in ("versions", "corpora", "policies") if name in target.areas])
    beside = Path(dice.choice(target.areas[area]))
    name = f"{''.join(dice.choices(_HEX, k=6))}{dice.choice(['.parquet', '.json', '.txt', '.safetensors'])}"
    uri = (beside.parent / name).as_posix()
    with _replaced(target, uri, (target.home / beside).read_bytes()):
        yield f"{uri} added", ((uri,),)


def other_value(dice: random.Random, value: Any) -> Any:
    """Another value of the same type, nearly the same."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + dice.choice([-1, 1, 10])
    if isinstance(value, float):
        return value + dice.choice([1e-6, -1e-3, 1.0]) * max(1.0, abs(value))
    if isinstance(value, str) and value:
        place = dice.randrange(len(value))
        letter = dice.choice([c for c in _HEX + "xyz" if c != value[place]])
        return f"{value[:place]}{letter}{value[place + 1 :]}"
    return "".join(dice.choices(_HEX, k=64))


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        items = list(value.items() if isinstance(value, dict) else enumerate(value))
    else:
        yield path
    for key, item in items:
        yield from _leaves(item, (*path, key))


def _record(area: str, only: str = "") -> Kind:
    """One value of a JSON record changed, in the form in which policylong writes it: only the content tells."""

    @contextmanager
    def change(target: Target, dice: random.Random) -> Iterator[Edit]:
        uri = dice.choice([name for name in target.areas[area] if name.endswith(only or ".json")])
        content = read_json(target.home / uri)
        *above, last = dice.choice(list(_leaves(content)))
        part = content
        for key in above:
            part = part[key]
        old = part[last]
        part[last] = other_value(dice, old)
        with _replaced(target, uri, None):
            write_json(target.home / uri, content)
            where = ".".join(map(str, (*above, last)))
            yield f"{uri}: {where} {json.dumps(old)} → {json.dumps(part[last])}", ((uri,),)

    return change


FILE_KINDS: dict[str, Kind] = {
    "one byte changed": _byte,
    "file deleted": _deleted,
    "file truncated": _truncated,
    "two files swapped": _swapped,
    "file added": _added,
    "campaign record edited": _record("campaign record"),
    "training record edited": _record("training records"),
    "policy record edited": _record("policies", RECORD),
}
