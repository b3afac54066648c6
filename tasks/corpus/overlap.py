"""Shared runs: whether two texts have a long piece in common once white space is folded (docs/method.md 2.4).

A copy passes the entropy test trivially, so a chunk that shares a run of 64 or more characters with its root is
excluded. A rule in characters does not depend on a tokenizer. Every window of ``length`` characters is hashed to 64
bits (vectorised); a hash that occurs in both texts is confirmed by comparing the characters, so the answer is exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RUN_CHARACTERS = 64
"""Length of a run, characters after folding. docs/method.md 2.4 (ours; the papers are silent)."""

Hashes = NDArray[np.uint64]
_BLOCK = 1 << 15
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def fold(text: str) -> str:
    """The text with every run of white space as one blank, and none at its ends."""
    return " ".join(text.split())


def code_points(text: str) -> NDArray[np.uint32]:
    """The text's code points ``[characters]``."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def window_hashes(codes: NDArray[np.uint32], length: int) -> Hashes:
    """A 64-bit hash of every window of ``length`` code points, ``[len(codes) - length + 1]`` (empty when shorter).

    The hash of a window is a polynomial in its mixed code points modulo 2**64, made by doubling: two windows of n
    give one of 2n, so 64 characters take six steps over the whole array.
    """
    if length < 1:
        raise ValueError("a run has at least one character")
    count = len(codes) - length + 1
    if count <= _BLOCK:
        return _hashes_of_block(codes, length)
    # A block at a time stays in the processor's cache.
    blocks = [_hashes_of_block(codes[at : at + _BLOCK + length - 1], length) for at in range(0, count, _BLOCK)]
    return np.concatenate(blocks)


def _hashes_of_block(codes: NDArray[np.uint32], length: int) -> Hashes:
    if len(codes) < length:
        return np.empty(0, dtype=np.uint64)
    with np.errstate(over="ignore"):
        power = _scrambled(codes.astype(np.uint64) + np.uint64(1))
        size, factor = 1, _BASE
        done: Hashes | None = None
        covered, rest = 0, length
        while True:
            if rest & 1:
                done = power if done is None else _joined(done, power, covered, factor)
                covered += size
            rest >>= 1
            if not rest:
                break
            power = power[:-size] * factor + power[size:]
            size, factor = size * 2, factor * factor
        assert done is not None
        return _scrambled(done[: len(codes) - length + 1])


def _joined(left: Hashes, right: Hashes, covered: int, factor: np.uint64) -> Hashes:
    """Hashes of windows made of a left part of ``covered`` characters and a right part that ``factor`` stands for."""
    count = len(right) - covered
    return left[:count] * factor + right[covered:]


def distinct(hashes: Hashes) -> Hashes:
    """The distinct values, sorted (``np.unique`` takes ten times as long on integers of this size)."""
    ordered = np.sort(hashes)
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))] if len(ordered) else ordered


def _scrambled(values: Hashes) -> Hashes:
    """SplitMix64's finaliser: equal stays equal, neighbours land far apart."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


def folded_codes(text: str) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Code points ``[m]`` of the folded text (as ``fold`` does it) and the place in ``text`` of each ``[m]``."""
    codes = code_points(text)
    blank = _blank_table()[codes]
    # The first blank of a run stays, as a space; runs at the ends go.
    inside = np.flatnonzero(~blank)
    if not len(inside):
        return np.empty(0, dtype=np.uint32), np.empty(0, dtype=np.int64)
    first, last = int(inside[0]), int(inside[-1]) + 1
    kept = ~blank[first:last]
    kept[1:] |= blank[first + 1 : last] & ~blank[first : last - 1]
    places = np.flatnonzero(kept) + first
    return np.where(blank[places], np.uint32(32), codes[places]), places


@lru_cache(maxsize=1)
def _blank_table() -> NDArray[np.bool_]:
    table = np.zeros(0x110000, dtype=np.bool_)
    table[[code for code in range(0x3001) if chr(code).isspace()]] = True
    return table


def text_hashes(text: str, length: int = RUN_CHARACTERS) -> Hashes:
    """Hashes of all windows of the folded text."""
    return window_hashes(folded_codes(text)[0], length)


class RunSet:
    """The runs of many texts, and which of them were met elsewhere; about 20 bytes per character of memory."""

    def __init__(self, hashes: Iterable[Hashes]) -> None:
        parts = [distinct(part) for part in hashes]
        self._hashes = distinct(np.concatenate(parts)) if parts else np.empty(0, dtype=np.uint64)
        # Most windows of most texts are in no set: one look into a small table spares them the search.
        bits = min(max(len(self._hashes).bit_length() + 3, 16), 26)
        self._shift = np.uint64(64 - bits)
        self._seen = np.zeros(1 << bits, dtype=np.bool_)
        self._seen[self._slots(self._hashes)] = True
        self._met = np.zeros(len(self._hashes), dtype=np.bool_)

    def __len__(self) -> int:
        return len(self._hashes)

    def has(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Which of these windows are in the set, ``[n]``."""
        found = self._seen[self._slots(hashes)]
        if found.any():
            candidates = hashes[found]
            found[found] = self._hashes[self._places(candidates)] == candidates
        return found

    def meet(self, hashes: Hashes) -> None:
        """Marks the runs that occur among these windows."""
        self._met[self._places(hashes[self.has(hashes)])] = True

    def met(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Which of these windows, all of them in the set, were met, ``[n]``."""
        return self._met[self._places(hashes)] if len(self._hashes) else np.zeros(len(hashes), dtype=np.bool_)

    def _places(self, hashes: Hashes) -> NDArray[np.int64]:
        return np.minimum(np.searchsorted(self._hashes, hashes), max(0, len(self._hashes) - 1))

    def _slots(self, hashes: Hashes) -> NDArray[np.uint64]:
        return hashes >> self._shift


@dataclass(frozen=True, slots=True)
class Windows:
    """A folded text and the hashes of its windows, to be compared with many others."""

    folded: str
    hashes: Hashes

    @classmethod
    def of(cls, text: str, length: int = RUN_CHARACTERS) -> Windows:
        """Those of a text; ``length`` in characters after folding."""
        folded = fold(text)
        return cls(folded, window_hashes(code_points(folded), length))


class RunIndex:
    """One text against many: ``RunIndex(root).shares(chunk)``."""

    def __init__(self, text: str, length: int = RUN_CHARACTERS) -> None:
        self._folded = fold(text)
        self._length = length
        self._hashes = distinct(window_hashes(code_points(self._folded), length))

    def shares(self, other: str | Windows) -> bool:
        """Whether ``other`` has a run of ``length`` or more folded characters in common with the text; its windows must
        be of that length.
        """
        if not len(self._hashes):
            return False
        windows = Windows.of(other, self._length) if isinstance(other, str) else other
        places = np.searchsorted(self._hashes, windows.hashes)
        places[places == len(self._hashes)] = 0
        for start in np.flatnonzero(self._hashes[places] == windows.hashes).tolist():
            if windows.folded[start : start + self._length] in self._folded:
                return True
        return False


def shared_run(a: str, b: str, length: int = RUN_CHARACTERS) -> bool:
    """Whether two texts share a run of ``length`` or more characters after white space is folded."""
    return RunIndex(a, length).shares(b)
