"""Homes to remove things from: two rounds, steps of one small table, a policy that nobody names."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from models.policy_files import policy_digest, policy_listing
from storage.checkpoints import StepKey, checkpoint_path, run_step, work_uri
from storage.digests import digest_file
from storage.home import Home
from storage.policies import add_policy, policy_folder
from storage.schemas import UNPLACED
from storage.tables import write_table
from storage.tombstones import list_tombstones
from tasks.retention.plan import Plan
from tests.rounds import BuiltRound

WEIGHTS = "model.safetensors"


def files(home: Home) -> dict[str, str]:
    """Every file of a home but locks, journal and tombstones, with its digest."""
    found = {p.relative_to(home.path).as_posix(): p for p in home.path.rglob("*") if p.is_file()}
    apart = ("locks/", "journal.jsonl", "tombstones/")
    return {name: digest_file(path) for name, path in found.items() if not name.startswith(apart)}


def removed(plan: Plan, kind: str) -> set[str]:
    return {name for removal in plan.removals if removal.kind == kind for name in removal.files}


def told(home: Home) -> set[str]:
    return {name for stone in list_tombstones(home) for name in stone.files}


def step(home: Home, name: str, *inputs: str, rows: int = 1) -> dict[str, Any]:
    """A finished step of one small table that read tables with these digests."""
    key = StepKey(step=name, code_version=1, inputs={"tables": list(inputs)}, config={})
    row = {"root": 1, "kind": "root", "chunk": None, "doc": None, "reason": name}
    table = [row | {"tokens": number} for number in range(rows)]
    ref = run_step(home, key, lambda: {"out": write_table(home.path, work_uri(key, "out"), UNPLACED, table)})["out"]
    return {"key": key, "ref": ref, "record": checkpoint_path(key)}


def copied_rounds(template: list[BuiltRound], folder: Path) -> list[BuiltRound]:
    """The rounds in another home, in which files share what they shared."""
    first: dict[int, Path] = {}

    def copied(source: str, target: str) -> None:
        known = first.setdefault(Path(source).stat().st_ino, Path(target))
        shutil.copyfile(source, target) if known == Path(target) else os.link(known, target)

    shutil.copytree(template[0].home.path, folder, copy_function=copied)
    home = Home(folder)
    return [replace(built, home=home) for built in template]


def stray_policy(built: BuiltRound) -> str:
    """A policy trained on a round that has another next policy."""
    home = built.home
    folder = home.folder("stray")
    for path in policy_folder(home, built.manifest.policy).iterdir():
        shutil.copyfile(path, folder / path.name)
    (folder / "policy.json").unlink()
    save_file({"weight": np.full((1,), 77, np.float32)}, folder / WEIGHTS)
    listing = policy_listing(folder)
    digest = policy_digest(folder)
    parent = built.manifest.policy
    add_policy(home, folder, digest, parent=parent, trained_on=built.version, round=1, files=listing)
    shutil.rmtree(folder)
    return digest
