"""Numbers that a step hands on: a small JSON file with a ref, since refs are all that passes between steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storage.checkpoints import StepKey
from storage.digests import digest_file, short
from storage.files import read_json, write_json
from storage.home import Home
from storage.refs import Ref
from storage.tables import check_ref


def write_counts(home: Home, key: StepKey, counts: Mapping[str, Any]) -> Ref:
    """Writes a step's numbers (any JSON) beside its tables."""
    uri = f"work/{key.step}/{short(key.digest, 32)}-counts.json"
    write_json(home / uri, dict(counts))
    return Ref(uri=uri, sha256=digest_file(home / uri), rows=len(counts), table="counts")


def read_counts(home: Home, ref: Ref) -> dict[str, Any]:
    """The numbers of ``write_counts``; raises ``IntegrityError`` when the file was changed."""
    counts: dict[str, Any] = read_json(check_ref(home.path, ref))
    return counts
