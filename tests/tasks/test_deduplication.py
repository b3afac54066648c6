"""Near duplicates against the true Jaccard similarity of their shingles."""

from __future__ import annotations

import itertools
import random

from storage.digests import digest_text
from tasks.corpus.deduplication import DeduplicationConfig, Deduplicator, shingles

CONFIG = DeduplicationConfig(permutations=256)


def texts(count: int = 40) -> list[str]:
    """Random texts and copies of them with more and more words changed."""
    draw = random.Random(5)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 9))) for _ in range(400)]
    made = []
    for _ in range(count // 8):
        base = draw.choices(words, k=300)
        for changes in (0, 1, 2, 5, 10, 20, 60, 150):
            copy = list(base)
            for place in draw.sample(range(len(copy)), changes):
                copy[place] = draw.choice(words)
            made.append(" ".join(copy))
    return made


def jaccard(a: str, b: str) -> float:
    def windows(text: str) -> set[str]:
        return {text[i : i + CONFIG.shingle] for i in range(len(text) - CONFIG.shingle + 1)}

    return len(windows(a) & windows(b)) / len(windows(a) | windows(b))


def test_what_is_clearly_alike_is_refused_and_what_is_clearly_not_is_kept() -> None:
    known = Deduplicator(CONFIG)
    kept: list[str] = []
    for number, text in enumerate(texts()):
        refusal = known.refuse(digest_text(text), text, f"text {number}")
        nearest = max((jaccard(text, other) for other in kept), default=0.0)
        if nearest >= 0.92:
            assert refusal is not None
        if nearest <= 0.65:
            assert refusal is None
        if refusal is None:
            kept.append(text)
    assert 5 <= len(kept) <= 25


def test_the_sampled_shingles_estimate_the_jaccard_similarity() -> None:
    for a, b in itertools.pairwise(texts(16)):
        mine, theirs = set(shingles(a, CONFIG).tolist()), set(shingles(b, CONFIG).tolist())
        assert abs(len(mine & theirs) / len(mine | theirs) - jaccard(a, b)) < 0.12


def test_an_exact_duplicate_names_the_first_one() -> None:
    known = Deduplicator(DeduplicationConfig(near=False))
    assert known.refuse(digest_text("a"), "a", "one") is None
    assert known.refuse(digest_text("b"), "b", "two") is None
    refusal = known.refuse(digest_text("a"), "a", "three")
    assert refusal is not None
    assert (refusal.reason, refusal.detail) == ("duplicate", "the same as one")


def test_short_texts_are_compared_exactly_only() -> None:
    known = Deduplicator(DeduplicationConfig())
    assert known.refuse(digest_text("a short text"), "a short text", "one") is None
    assert known.refuse(digest_text("a short text."), "a short text.", "two") is None


def test_two_runs_refuse_the_same_documents() -> None:
    def refused() -> list[bool]:
        known = Deduplicator(CONFIG)
        return [known.refuse(digest_text(text), text, str(number)) is not None for number, text in enumerate(texts())]

    assert refused() == refused()
