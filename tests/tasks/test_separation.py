"""Held-out documents share no run with the others afterwards, and keep every paragraph that shared none."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.corpus.overlap import shared_run
from tasks.corpus.separation import paragraph_spans, separated

LENGTH = 12
PARAGRAPHS = st.lists(
    st.sampled_from([f"{'abcdefgh'[i]}{i} is one paragraph of text" for i in range(8)] + ["tiny", "so"]), max_size=6
)


@settings(deadline=None)
@given(st.lists(PARAGRAPHS, min_size=1, max_size=3), st.lists(PARAGRAPHS, max_size=3))
def test_no_run_is_shared_afterwards_and_nothing_else_goes(heldout: list[list[str]], others: list[list[str]]) -> None:
    texts = {number: "\n\n".join(paragraphs) for number, paragraphs in enumerate(heldout)}
    rest = ["\n".join(paragraphs) for paragraphs in others]
    after = separated(texts, lambda: rest, LENGTH)
    for number, text in after.items():
        assert not any(shared_run(text, other, LENGTH) for other in rest)
        left = text.split("\n\n") if text else []
        remaining = iter(heldout[number])
        assert all(paragraph in remaining for paragraph in left)
        if not any(shared_run(texts[number], other, LENGTH) for other in rest):
            assert text == texts[number]


def test_paragraphs_that_become_neighbours_are_looked_at_again() -> None:
    heldout = {0: "first half of it\n\nshared with the others\n\nsecond half of it"}
    rest = ["shared with the others", "half of it second half"]
    after = separated(heldout, lambda: rest, 18)
    assert "shared" not in after[0]
    assert not any(shared_run(after[0], other, 18) for other in rest)


@settings(deadline=None)
@given(st.text(alphabet="ab \n\t", max_size=60))
def test_paragraphs_cover_the_text_but_for_white_space(text: str) -> None:
    spans = paragraph_spans(text).tolist()
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert text[end:start].strip() == ""
        assert text[end:start].count("\n") >= 2
