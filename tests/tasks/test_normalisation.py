"""One text, one form: normalising again changes nothing, and what people see stays."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.corpus.normalisation import NormalisationConfig, normalised
from tasks.corpus.quarantine import Refusal

CONFIG = NormalisationConfig(min_characters=1, max_characters=1_000)


@settings(deadline=None)
@given(
    st.text(
        alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("\r\n\t \x00\u0301e\ufeff")),
        max_size=80,
    )
)
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = normalised(text, CONFIG)
    if isinstance(once, Refusal):
        assert once.reason == "empty"
        return
    assert normalised(once, CONFIG) == once
    assert unicodedata.is_normalized("NFC", once)
    assert not any(line != line.rstrip() for line in once.split("\n"))
    assert all(letter in "\n\t" or unicodedata.category(letter) != "Cc" for letter in once)
    assert "\n\n\n\n" not in once


@pytest.mark.parametrize(
    ("raw", "form"),
    [
        ("a\r\nb\rc", "a\nb\nc"),
        ("cafe\u0301", "café"),
        ("e\x00\u0301", "é"),
        ("\ufeffa  \n\tb\t ", "a\n\tb"),
        ("    indented\n\n\n\n\n    more", "    indented\n\n\n    more"),
        ("page\x0cpage", "page\npage"),
    ],
)
def test_forms(raw: str, form: str) -> None:
    assert normalised(raw, CONFIG) == form


@pytest.mark.parametrize(
    ("raw", "reason"),
    [(" \n\t\x00", "empty"), ("", "empty"), ("a \ud800 b", "lone-surrogate"), ("x" * 1_001, "too-long")],
)
def test_what_can_not_be_a_document_is_refused(raw: str, reason: str) -> None:
    refusal = normalised(raw, CONFIG)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == reason
    refusal.excerpt.encode()


def test_a_short_text_is_refused_with_its_length() -> None:
    assert normalised("short", NormalisationConfig(min_characters=6)) == Refusal(
        "too-short", "5 characters, expected at least 6", "short"
    )
