"""Chunks fit, cover the document, and end where a reader would end them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import PreTrainedTokenizerFast

from tasks.corpus.chunking import Chunker, ChunkingConfig, Span, Tokenizing
from tests.tiny_policies import tiny_tokenizer

TOKENIZER: PreTrainedTokenizerFast = tiny_tokenizer()


def ids(text: str) -> list[int]:
    encoded: list[int] = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return encoded


def starts(text: str) -> list[int]:
    return [
        start for start, _ in TOKENIZER(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ]


def pieces(texts: Sequence[str]) -> list[int]:
    """Stands for the embedder: one piece for every two bytes, and two special ones."""
    return [2 + (len(text.encode()) + 1) // 2 for text in texts]


def chunker(max_tokens: int, limit: int = 10_000, min_fill: float = 0.5) -> Chunker:
    config = ChunkingConfig(max_tokens=max_tokens, min_tokens=1, min_fill=min_fill)
    return Chunker(Tokenizing(count=lambda text: len(ids(text)), starts=starts), pieces, limit, config)


def check(text: str, spans: list[Span], max_tokens: int, limit: int) -> None:
    end = 0
    for span in spans:
        assert text[end : span.start].strip() == ""
        assert span.end > span.start
        piece = text[span.start : span.end]
        assert piece == piece.rstrip()
        assert piece.strip()
        assert span.tokens == len(ids(piece)) <= max_tokens
        assert pieces([piece])[0] <= limit
        end = span.end
    assert text[end:].strip() == ""


TEXTS = st.text(alphabet=st.sampled_from("ab. \n\n  \tdef shift(values)é漢字。\U0001d11e\u0301"), max_size=400)


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.integers(8, 40), st.integers(8, 60))
def test_chunks_fit_policy_and_embedder_and_cover_the_text(text: str, max_tokens: int, limit: int) -> None:
    check(text, chunker(max_tokens, limit).spans(text), max_tokens, limit)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=120), st.integers(8, 20))
def test_any_text_at_all_can_be_cut(text: str, max_tokens: int) -> None:
    check(text, chunker(max_tokens, 16).spans(text), max_tokens, 16)


def test_a_chunk_ends_at_the_highest_border_that_fills_it() -> None:
    sentence = "The function moves every value by a step."
    text = "\n\n".join(["\n".join([sentence] * 3)] * 4)
    tokens = len(ids("\n".join([sentence] * 3)))
    ends = {text[span.end :][:2] for span in chunker(tokens + 5).spans(text)}
    assert ends <= {"\n\n", ""}
    by_sentence = chunker(tokens // 3 + 2).spans(" ".join([sentence] * 5))
    assert [span.end - span.start for span in by_sentence] == [len(sentence)] * 5


def test_a_heading_stays_with_its_text() -> None:
    text = "# Step\n\nThe function moves every value by a step.\n\nThe function moves every value by a step."
    first = chunker(len(ids(text)) - 8).spans(text)[0]
    assert text[first.start : first.end].startswith("# Step\n\nThe")


def test_indentation_stays_and_white_space_without_end_does_not_matter() -> None:
    text = "def shift():\n    return values\n\n    more"
    spans = chunker(12).spans(text)
    assert any(text[span.start : span.end].startswith("    ") for span in spans)
    far = "values" + " " * 5_000 + "\n" + " " * 5_000 + "values"
    check(far, chunker(8).spans(far), 8, 10_000)


def test_a_document_longer_than_a_block_is_cut_like_a_short_one() -> None:
    text = "The function moves every value by a step. " * 6_000
    spans = chunker(60).spans(text)
    assert sum(span.end - span.start for span in spans) > 0.97 * len(text)
    assert all(span.tokens <= 60 for span in spans)
    assert sum(span.tokens for span in spans) / len(spans) > 0.7 * 60


def test_empty_texts_have_no_chunks() -> None:
    assert chunker(20).spans("") == []
    assert chunker(20).spans(" \n\n ") == []


def test_the_smallest_chunk_can_not_be_larger_than_the_largest() -> None:
    with pytest.raises(ValidationError, match="min_tokens 30 is over max_tokens 20"):
        ChunkingConfig(min_tokens=30, max_tokens=20)


def test_the_largest_chunk_follows_the_policys_context_where_nothing_is_said() -> None:
    assert ChunkingConfig().fitted(512).max_tokens == 120
    assert ChunkingConfig().fitted(2048).max_tokens == 504
    assert ChunkingConfig().fitted(32_768).max_tokens == 512
    assert ChunkingConfig().fitted(40).max_tokens == ChunkingConfig().min_tokens
    assert ChunkingConfig(max_tokens=77).fitted(512).max_tokens == 77
