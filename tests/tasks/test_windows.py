"""Windows: within the limit when tokenised alone, in order, never overlapping, and nothing but white space between."""

from __future__ import annotations

import itertools
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.corpus.windows import cut_window_behind, cut_windows, reach_of
from tasks.screening.roots import RootsConfig, _roots_of_document

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


@given(
    text=texts, place=st.integers(0, 200), length=st.integers(1, 200), limit=st.integers(4, 40), least=st.integers(1, 4)
)
@settings(max_examples=300, deadline=None)
def test_a_window_behind_a_place_stays_in_its_stretch(
    text: str, place: int, length: int, limit: int, least: int
) -> None:
    stop = min(place + length, len(text))
    window = cut_window_behind(text, min(place, stop), stop, encode, max_tokens=limit, min_tokens=least)
    if window is not None:
        assert place <= window.start < window.end <= stop
        assert least <= len(window.ids) <= limit
        assert list(window.ids) == encode(text[window.start : window.end])[0][:limit]
        assert not text[window.start].isspace()


def test_a_window_behind_a_place_begins_at_a_paragraph_where_it_can() -> None:
    text = "one two three four\nfive six\n\nseven eight nine ten eleven twelve thirteen fourteen fifteen"
    window = cut_window_behind(text, 4, len(text), encode, max_tokens=9, min_tokens=2)
    assert window is not None
    assert text[window.start :].startswith("seven")
    word = cut_window_behind(text, 4, 27, encode, max_tokens=9, min_tokens=1)
    assert word is not None
    assert text[word.start : word.end] == "three four\nfive six"


def test_of_a_long_document_only_the_windows_are_tokenised() -> None:
    seen: list[int] = []

    def counted(text: str) -> tuple[list[int], list[tuple[int, int]]]:
        seen.append(len(text))
        return encode(text)

    config = RootsConfig(root_tokens=50, min_tokens=10, windows_per_document=5)
    book = "".join(f"A paragraph, the {number}th, of some words.\n\n" for number in range(20_000))
    roots = list(_roots_of_document(3, {"doc_id": "d", "text": book}, "train", counted, config))
    assert len(roots) == 5
    assert sum(seen) < 10 * 5 * reach_of(50)
    spans = [(root["char_start"], root["char_end"]) for root in roots]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert max(spans)[0] > len(book) / 2 > min(spans)[0]
    assert all(book[start:end].startswith("A paragraph") for start, end in spans)
    again = list(_roots_of_document(3, {"doc_id": "d", "text": book}, "train", counted, config))
    other = list(_roots_of_document(3, {"doc_id": "e", "text": book}, "train", counted, config))
    assert [root["root_id"] for root in roots] == [root["root_id"] for root in again]
    assert spans != [(root["char_start"], root["char_end"]) for root in other]
