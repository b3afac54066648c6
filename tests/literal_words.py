"""BM25 and reciprocal rank fusion as their papers write them, slowly and without the product's code.

Weights of single words are rounded to 1/1024, as docs/method.md 2.4 says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction


def words(text: str) -> list[str]:
    """Longest runs of letters, digits and underscores, in lower case."""
    return re.findall(r"\w+", text.lower())


def bm25(chunks: Sequence[str], query: str, k1: float = 1.2, b: float = 0.75) -> dict[int, float]:
    """BM25 of every chunk that shares a word with the query, in float64."""
    split = [words(chunk) for chunk in chunks]
    average = sum(map(len, split)) / len(chunks)
    holders = {word: sum(word in other for other in split) for word in set(words(query))}
    merits: dict[int, float] = {}
    for number, chunk in enumerate(split):
        for word in holders.keys() & set(chunk):
            rarity = math.log(1 + (len(chunks) - holders[word] + 0.5) / (holders[word] + 0.5))
            times, held_back = chunk.count(word), k1 * (1 - b + b * len(chunk) / average)
            weight = rarity * times * (k1 + 1) / (times + held_back)
            merits[number] = merits.get(number, 0.0) + round(weight * 1024) / 1024
    return {number: merit for number, merit in merits.items() if merit > 0}


def best(merits: dict[int, float], top: int) -> list[int]:
    """The chunks with the largest merits, ties by number."""
    return sorted(merits, key=lambda chunk: (-merits[chunk], chunk))[:top]


def fused(lists: Sequence[Sequence[int]], k: int) -> list[int]:
    """All chunks of the lists by the sum of 1 / (k + place), in fractions, ties by number."""
    merits: dict[int, Fraction] = {}
    for chunks in lists:
        for place, chunk in enumerate(chunks, start=1):
            merits[chunk] = merits.get(chunk, Fraction(0)) + Fraction(1, k + place)
    return sorted(merits, key=lambda chunk: (-merits[chunk], chunk))
