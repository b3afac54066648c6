"""A home that was moved, or restored in another place: MLflow's embedded store follows it.

MLflow keeps the absolute place of its artifacts in the rows of experiments and runs; everything else in a home is by
relative path.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

ARTIFACTS = "/mlflow/artifacts"
"""Where the artifacts are in a home, as the end of their address."""
_PLACES = (("experiments", "artifact_location"), ("runs", "artifact_uri"))


def follow_home(database: Path, artifacts: str) -> int:
    """Points the rows of a SQLite store at ``artifacts``, the home's folder as a file URI; returns how many it changed.

    Rows that name no home's folder of artifacts are left alone. Raises ``sqlite3.OperationalError`` for a store that
    stays locked for a minute.
    """
    changed = 0
    with closing(sqlite3.connect(database, timeout=60)) as store, store:
        tables = {name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table, column in _PLACES:
            if table not in tables:
                continue
            for (place,) in store.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall():
                before, found, after = str(place).rpartition(ARTIFACTS)
                if found and str(place).startswith("file:") and f"{before}{found}" != artifacts:
                    moved = f"UPDATE {table} SET {column} = ? WHERE {column} = ?"
                    changed += store.execute(moved, (f"{artifacts}{after}", place)).rowcount
    return changed
