"""What one audit has looked at already: rounds of a campaign share their corpus, policies, ancestors and records.

It lives as long as one audit and holds findings and records, never the bytes of tables or weights: the next audit
hashes everything again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

from storage.findings import Finding
from storage.home import Home
from storage.tombstones import explained
from storage.versions import verify_version, version_bytes
from tasks.progress import progress

_LEFTOVER = re.compile(r"^\..*\.\d+\.tmp$")


Seen = TypeVar("Seen")


class Looked:
    """What one audit has found so far, by what it is about."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._seen: dict[str, Any] = {}

    def once(self, what: str, look: Callable[[], Seen]) -> Seen:
        """What ``look`` gives, called the first time something is asked for."""
        if what not in self._seen:
            self._seen[what] = look()
        return cast(Seen, self._seen[what])

    def version(self, version: str) -> list[Finding]:
        """Every file of a version (in full, or its folder's name) against the manifest."""

        def look() -> list[Finding]:
            with progress("hashing files", total=version_bytes(self.home, version), unit="bytes") as advance:
                found = verify_version(self.home, version, advance=advance)
            return [explained(self.home, finding) for finding in found]

        return self.once(f"version {version}", look)


def form_problem(path: Path) -> str | None:
    """What is wrong with the bytes of a JSON file whose values may be right: policylong writes one form and no other.

    ``None`` also for a file that is not JSON at all: whoever reads it says so.
    """
    data = path.read_bytes()
    try:
        written = json.dumps(json.loads(data), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        same = written.encode() == data
    except ValueError:
        return None
    return None if same else "was edited: it is not in the form in which policylong writes it"


def strangers(folder: Path, known: Iterable[str]) -> list[str]:
    """Names of files in a folder that are not known, sorted; half-written files of a killed process are nobody's."""
    expected = set(known)
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in expected and not _LEFTOVER.match(path.name) and (path.is_symlink() or not path.is_dir())
    )
