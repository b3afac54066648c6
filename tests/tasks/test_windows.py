"""Windows: within the limit when tokenised alone, in order, never overlapping, and nothing but white space between."""

from __future__ import annotations

import itertools
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.corpus.windows import cut_windows

texts = st.text(st.sampled_from(list("ab c,\n\t.é")), max_size=400) | st.lists(
    st.sampled_from(["word ", "\n", "\n\n", "longer_identifier", " ", "(x)"]), max_size=120
).map("".join)


def encode(text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """A tokenizer of words with the blank before them, whose tokens change at a text's start, as a BPE's do."""
    found = [match.span() for match in re.finditer(r"\n+|\s?[^\s]{1,3}|\s", text)]
    return [hash(text[a:b]) % 1000 for a, b in found], found


@given(text=texts, limit=st.integers(4, 40), least=st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_windows_tile_the_text(text: str, limit: int, least: int) -> None:
    windows = list(cut_windows(text, encode, max_tokens=limit, min_tokens=least))
    for window in windows:
        assert least <= len(window.ids) <= limit
        assert list(window.ids) == encode(text[window.start : window.end])[0][:limit]
        assert not text[window.start].isspace()
    for before, after in itertools.pairwise(windows):
        assert before.end <= after.start
    if least == 1:
        covered = [text[w.start : w.end] for w in windows]
        assert re.sub(r"\s", "", "".join(covered)) == re.sub(r"\s", "", text)


def test_a_window_ends_at_a_paragraph_where_it_can() -> None:
    text = "one two three\n\nfour five six\n\nseven eight nine"
    first = next(iter(cut_windows(text, encode, max_tokens=8, min_tokens=2)))
    assert text[first.start : first.end] == "one two three"
