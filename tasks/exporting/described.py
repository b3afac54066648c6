"""``croissant.json`` in an export: the description of the version, put beside the files it describes.

It names the files of the version by their digests, so it belongs into an export of Parquet as it is. It is no part of
``export.json``: one that ``policylong report --croissant`` wrote may be copied into the folder as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from storage.digests import short
from storage.errors import ConfigError
from storage.files import write_bytes
from storage.findings import Finding, failed, passed
from storage.manifests import Manifest
from tasks.exporting.record import ExportOptions, ExportRecord
from tasks.reporting.croissant import CROISSANT, described

CHECK = "croissant.json"


def describable(options: ExportOptions) -> bool:
    """Whether the files of such an export are those of the version."""
    return options.format == "parquet" and options.tokenizer is None


def description(manifest: Manifest, options: ExportOptions) -> bytes:
    """The bytes of ``croissant.json``.

    Raises ``ConfigError`` for an export whose files are not the version's, and when mlcroissant is not installed.
    """
    if not describable(options):
        raise ConfigError(
            "croissant.json describes the Parquet files of a version, and this export has others.",
            hint="Leave out --croissant, or export with --format parquet and without --tokenizer.",
        )
    return described(manifest)


def put_description(folder: Path, data: bytes) -> None:
    """Writes it into a finished export, unless it is there."""
    path = folder / CROISSANT
    if not path.is_file() or path.read_bytes() != data:
        write_bytes(path, data)


def audit_description(folder: Path, record: ExportRecord) -> Finding | None:
    """Whether an export's ``croissant.json`` names its version and its files as they are; None where there is none."""
    path = folder / CROISSANT
    if not path.exists() and not path.is_symlink():
        return None
    try:
        told: dict[str, Any] = json.loads(path.read_bytes())
        url = told["url"]
        files = {str(p["contentUrl"]): p["sha256"] for p in told["distribution"] if "sha256" in p}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return failed(CHECK, f"is no description of files ({type(error).__name__})", CROISSANT)
    if url != f"urn:sha256:{record.version}":
        return failed(CHECK, f"does not describe version {short(record.version)}", CROISSANT)
    own = {name: entry.sha256 for name, entry in record.files.items()}
    wrong = sorted(name for name, sha256 in files.items() if own.get(name) != sha256)
    unnamed = sorted(own.keys() - files.keys() - {"manifest.json"})
    if wrong or unnamed:
        first = f"{wrong[0]} is not in this export as it says" if wrong else f"{unnamed[0]} is not named"
        return failed(CHECK, f"{len(wrong) + len(unnamed)} files differ, the first: {first}", CROISSANT)
    return passed(CHECK, f"names {len(files)} files of the version", CROISSANT)
