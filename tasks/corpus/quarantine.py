"""Rows that were refused: every reason there is, their table, and the limit past which a run stops.

Documents + quarantine = rows read: nothing is lost silently.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from storage.errors import QuarantineError

Reason = Literal[
    "broken-json",
    "not-an-object",
    "missing-column",
    "null-text",
    "not-a-text",
    "not-utf8",
    "lone-surrogate",
    "too-long",
    "too-short",
    "empty",
    "duplicate",
    "near-duplicate",
    "contaminated",
    "overlap-heldout",
]
REASONS: Mapping[Reason, str] = {
    "broken-json": "the line is not valid JSON",
    "not-an-object": "the line is JSON, but not an object with columns",
    "missing-column": "the row has no text column",
    "null-text": "the text is null",
    "not-a-text": "the text is a number, list or something else",
    "not-utf8": "the bytes are not UTF-8",
    "lone-surrogate": "half of a surrogate pair, which is no character",
    "too-long": "longer than max_row_bytes or max_characters",
    "too-short": "shorter than min_characters",
    "empty": "nothing but white space",
    "duplicate": "the same text after normalisation as an earlier document",
    "near-duplicate": "almost the same text as an earlier document",
    "contaminated": "shares a run with a benchmark file",
    "overlap-heldout": "a held-out document of which too little is left without the runs it shares with other parts",
}
DUPLICATES: frozenset[Reason] = frozenset({"duplicate", "near-duplicate"})
"""Refusals that say nothing about the quality of the input; they do not count against the limit."""
SHOWN = 200
"""Length of detail and excerpt, characters."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class QuarantineConfig(BaseModel):
    """When too much is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: float = Field(
        0.05, ge=0, le=1, description="Largest share of the rows that may be refused, duplicates not counted. Ours."
    )


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a row was refused: the reason, what was found, and the beginning of the text; both cut and made printable."""

    reason: Reason
    detail: str = ""
    excerpt: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", printable(self.detail))
        object.__setattr__(self, "excerpt", printable(self.excerpt))


def refused_row(source: str, row: int, refusal: Refusal) -> dict[str, object]:
    """A row of the quarantine table."""
    return {
        "source": source,
        "row": row,
        "reason": refusal.reason,
        "detail": refusal.detail,
        "excerpt": refusal.excerpt,
    }


def printable(text: str) -> str:
    """The beginning of a text that any terminal and any table can hold."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", " ".join(text[: 2 * SHOWN].split())[:SHOWN])


def check_share(refused: Mapping[str, int], rows: int, config: QuarantineConfig, table: str = "the quarantine") -> None:
    """Raises ``QuarantineError`` when the share of refused rows, duplicates not counted, is over the limit."""
    counted = {reason: n for reason, n in refused.items() if n and reason not in DUPLICATES}
    total = sum(counted.values())
    if not rows or total / rows <= config.limit:
        return
    reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(counted.items(), key=lambda item: (-item[1], item[0])))
    raise QuarantineError(
        f"{total} of {rows} rows were refused ({total / rows:.1%}, limit {config.limit:.1%}): {reasons}.",
        hint=f"Look at {table}, mend the input, or raise quarantine.limit.",
    )


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """How often each reason occurs, every known one included, in the order they are declared."""
    counted = Counter(reasons)
    return {reason: counted[reason] for reason in get_args(Reason)}
