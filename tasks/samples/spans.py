"""Spans laid out as a sample of exactly so many tokens: BOS, span, separator, span, … cut where the sample ends.

For recipes whose spans carry no dependency. What stands behind the end is told to the caller, who carries it on or
reports it. A sample may end inside a separator: the next span starts the next sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage.digests import digest_json


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one origin; ``source_start`` is the first token's place in it (for a tag: its part's number)."""

    kind: str
    doc_id: str
    ids: Sequence[int]
    root_id: str | None = None
    chunk_id: str | None = None
    source_start: int = 0


@dataclass(frozen=True, slots=True)
class Form:
    """What all samples of a round have in common: length in tokens, the ids at the start, the ids between spans."""

    target: int
    bos: tuple[int, ...]
    separator: tuple[int, ...]

    @property
    def room(self) -> int:
        """Tokens of a sample without its BOS."""
        return self.target - len(self.bos)

    def cost(self, tokens: int) -> int:
        """Tokens of a span and the separator behind it."""
        return tokens + len(self.separator)

    def lay_out(self, spans: Sequence[Span]) -> tuple[dict[str, Any], list[int]] | None:
        """A row of ``samples`` and how many tokens of each span stand in it; None when the spans do not fill it.

        Spans have at least one token each. The row has no dependencies.
        """
        ids: list[int] = list(self.bos)
        segments: list[dict[str, Any]] = []
        placed = [0] * len(spans)
        for number, span in enumerate(spans):
            start = len(ids)
            if start >= self.target:
                break
            ids.extend(span.ids[: self.target - start])
            placed[number] = len(ids) - start
            segments.append(
                {
                    "kind": span.kind,
                    "root_id": span.root_id,
                    "chunk_id": span.chunk_id,
                    "doc_id": span.doc_id,
                    "start": start,
                    "end": len(ids),
                    "source_start": span.source_start,
                }
            )
            ids.extend(self.separator[: self.target - len(ids)])
        if len(ids) < self.target:
            return None
        row = {
            "sample_id": digest_json([ids, segments]),
            "input_ids": ids,
            "length": len(ids),
            "segments": segments,
            "dependencies": [],
        }
        return row, placed
