"""The options of ``policylong ingest`` as the configuration of an ingest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.overrides import configured
from flows.presets import load_preset
from storage.errors import InputError
from tasks.corpus.ingestion import IngestConfig


def ingest_config(
    paths: Sequence[Path],
    *,
    name: str | None,
    columns: Mapping[str, str | None],
    benchmarks: Sequence[Path],
    preset: str | None,
    changes: Sequence[str],
) -> IngestConfig:
    """What to ingest: a preset's corpus section, or the defaults, with what the command line says in their place.

    ``changes`` are keys of the corpus section. Raises ``InputError`` for a path that is not there, before any work.
    """
    for path in (*paths, *benchmarks):
        if not path.exists():
            raise InputError(f"{path} does not exist.", hint="Give files or folders: policylong ingest PATH…")
    values: dict[str, Any] = load_preset(preset).corpus.model_dump() if preset else {}
    if not paths and not preset:
        raise InputError("nothing to ingest.", hint="policylong ingest PATH…, or --preset with a corpus section.")
    if paths:
        values |= {"paths": [str(path) for path in paths], "python": None}
    if name:
        values["name"] = name
    given = {column: value for column, value in columns.items() if value is not None}
    values["columns"] = {**values.get("columns", {}), **given}
    if benchmarks:
        values["contamination"] = {**values.get("contamination", {}), "paths": [str(path) for path in benchmarks]}
    return configured(IngestConfig, values, changes, where="ingest")
