"""What tests of traces read in a published round: rows of its tables, the one piece, words counted plainly."""

from __future__ import annotations

from typing import Any

from tasks.provenance.traces import Trace
from tests.rounds import BuiltRound
from tests.world_by_hand import Row


def rows(built: BuiltRound, table: str) -> list[Row]:
    """Rows of all shards of a table."""
    return [row for shard in built.tables[table] for row in shard]


def at(found: Trace) -> Any:
    """The one piece of a trace."""
    (piece,) = found.pieces
    return piece


def segment_of(sample: Row, token: int) -> Row | None:
    """The segment that holds a token, looked up from the first on; None between segments."""
    for segment in sample["segments"]:
        if segment["start"] <= token < segment["end"]:
            return segment
    return None


def words_before(text: str, count: int) -> int:
    """Characters of a text in front of its word number ``count``."""
    return len("".join(f"{word} " for word in text.split(" ")[:count]))
