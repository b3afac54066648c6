"""Cutting a document into windows of at most so many tokens, at paragraph borders where there are any."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Encode = Callable[[str], tuple[Sequence[int], Sequence[tuple[int, int]]]]
"""Text to token ids and the character range [start, end) of each."""

_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_LINE = re.compile(r"\n")
_BLANK = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Window:
    """Characters [start, end) of a document and their tokens when tokenised alone."""

    start: int
    end: int
    ids: tuple[int, ...]


def cut_windows(text: str, encode: Encode, *, max_tokens: int, min_tokens: int) -> Iterator[Window]:
    """Windows from the front of a document to its end, each at most ``max_tokens`` long when tokenised alone.

    A window ends at the last paragraph border that keeps it within the limit; if that would leave it shorter than
    ``min_tokens``, at the last line border; failing that, inside the line at a token. Windows shorter than
    ``min_tokens`` are left out. White space between windows belongs to none.
    """
    start = _skip_blank(text, 0)
    reach = reach_of(max_tokens)
    while start < len(text):
        window = _cut_one(text, start, encode, max_tokens, min_tokens, reach)
        if len(window.ids) >= min_tokens:
            yield window
        start = _skip_blank(text, window.end)


def reach_of(max_tokens: int) -> int:
    """Characters that are tokenised to find a window of ``max_tokens`` tokens; more where they turn out to be fewer."""
    return max(64, max_tokens * 6)


def cut_window_behind(
    text: str, place: int, stop: int, encode: Encode, *, max_tokens: int, min_tokens: int
) -> Window | None:
    """One window that begins at the first paragraph behind character ``place`` and ends before ``stop``.

    Where no paragraph begins within half of what is left, it begins at a line, failing that at the next word. None when
    fewer than ``min_tokens`` are left. Only this window is tokenised, whatever the document's length.
    """
    middle = (place + stop) // 2
    borders = (border.search(text, place, middle) for border in (_PARAGRAPH, _LINE, _BLANK))
    start = _skip_blank(text, next((found.end() for found in borders if found), place))
    if start >= stop:
        return None
    window = _cut_one(text[start:stop], 0, encode, max_tokens, min_tokens, reach_of(max_tokens))
    if len(window.ids) < min_tokens:
        return None
    return Window(start + window.start, start + window.end, window.ids)


def _cut_one(text: str, start: int, encode: Encode, max_tokens: int, min_tokens: int, reach: int) -> Window:
    piece = text[start : start + reach]
    ids, offsets = encode(piece)
    while len(ids) <= max_tokens and start + len(piece) < len(text):
        reach *= 2
        piece = text[start : start + reach]
        ids, offsets = encode(piece)
    if len(ids) <= max_tokens:
        end = len(piece.rstrip())
        return _exact(text, start, start + max(end, 1), encode, max_tokens)
    limit = max(offsets[max_tokens][0], 1)
    least = offsets[min(min_tokens, max_tokens) - 1][1]
    for border in (_PARAGRAPH, _LINE):
        ends = [match.start() for match in border.finditer(piece, least, limit + 1) if match.start() <= limit]
        if ends:
            return _exact(text, start, start + ends[-1], encode, max_tokens)
    return _exact(text, start, start + limit, encode, max_tokens)


def _exact(text: str, start: int, end: int, encode: Encode, max_tokens: int) -> Window:
    ids, offsets = encode(text[start:end])
    while len(ids) > max_tokens:  # tokenised alone the end can fall into more tokens than it did in the middle
        end = start + max(offsets[max_tokens][0], 1)
        ids, offsets = encode(text[start:end])
        if end == start + 1:
            break
    return Window(start, end, tuple(ids[:max_tokens]))


def _skip_blank(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start
