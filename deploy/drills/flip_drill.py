"""Flips one random bit in one file after the other and shows that ``policylong audit`` names each of them.

    python deploy/drills/flip_drill.py --home .policylong 3          every file of round 3, its corpus and its policy

Each file is damaged, audited (the exit code has to be 1 and the file has to be named), and put right again at once; in
the end the audit has to pass. The home is as it was, unless the drill itself is killed: then the last file it named is
still damaged.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from storage.corpora import corpus_folder
from storage.errors import PolicylongError
from storage.home import Home
from storage.policies import policy_record
from storage.versions import load_manifest, resolve_version, version_uri
from tasks.audit.checks import audit_version


def files_of_round(home: Home, version: str, *, chain: bool) -> list[Path]:
    """Every file of a version; with ``chain`` also those of its corpus and of the policy that screened it."""
    manifest = load_manifest(home, version)
    folders = [home / version_uri(version)]
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    if chain:
        found += [path for path in (home / corpus_folder(manifest.corpus)).rglob("*") if path.is_file()]
        record = policy_record(home, manifest.policy)
        found += [home / record.folder / name for name in record.files]
    return sorted(path for path in found if path.stat().st_size)


@contextmanager
def flipped_bit(path: Path, dice: random.Random) -> Iterator[int]:
    """Flips a random bit of a file, in place, while the block runs; gives the bit's number."""
    bit = dice.randrange(8 * path.stat().st_size)
    flip(path, bit)
    try:
        yield bit
    finally:
        flip(path, bit)


def flip(path: Path, bit: int) -> None:
    """Flips one bit of a file in place and makes it durable."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ (1 << (bit % 8))]))
        file.flush()
        os.fsync(file.fileno())


def flip_each(home: Home, version: str, dice: random.Random, *, chain: bool = True) -> Iterator[tuple[str, int, bool]]:
    """(file relative to the home, bit, whether the audit failed and named it) for each file, one at a time."""
    for path in files_of_round(home, version, chain=chain):
        name = path.relative_to(home.path).as_posix() if path.is_relative_to(home.path) else str(path)
        with flipped_bit(path, dice) as bit:
            report = audit_version(home, version)
        named = any(name in (finding.file or "") or name in finding.detail for finding in report.failures)
        yield name, bit, report.exit_code == 1 and named


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the drill; 0 when every damaged file was named and the whole round passes in the end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    default = Path(os.environ.get("POLICYLONG_HOME", ".policylong"))
    parser.add_argument("--home", type=Path, default=default, help="home folder (POLICYLONG_HOME or .policylong)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bits (0)")
    parser.add_argument("--version-only", action="store_true", help="leave corpus and policy alone")
    parser.add_argument("round", nargs="?", default="1", help="round, version or prefix (1)")
    chosen = parser.parse_args(arguments)
    table = Table("bit", "found and named")
    table.add_column("file", overflow="fold")
    good = True
    try:
        home = Home.open(chosen.home)
        version = resolve_version(home, chosen.round)
        dice = random.Random(chosen.seed)
        for name, bit, named in flip_each(home, version, dice, chain=not chosen.version_only):
            table.add_row(str(bit), "[green]yes[/]" if named else "[bold red]NO[/]", name)
            good &= named
        after = audit_version(home, version)
    except PolicylongError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    summary = Text(f"nothing damaged: {after.summary}", style="bold red" if after.exit_code else "green")
    Console().print(table, summary)
    return 0 if good and not after.exit_code else 1


if __name__ == "__main__":
    sys.exit(main())
