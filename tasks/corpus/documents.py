"""A document on its way in: text with its origin, before it has an identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RawDocument:
    """One document as a reader yields it.

    ``source`` names the origin without any path of this machine (``books.parquet#17``,
    ``numpy==2.3.4:numpy/fft/_pocketfft.py#api``). ``group`` is the unit of the split into parts: all documents of one
    distribution or title fall into the same part.
    """

    text: str
    source: str
    title: str
    group: str
    metadata: Mapping[str, str] = field(default_factory=dict)
