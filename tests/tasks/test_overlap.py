"""Shared runs against the definition written out: some window of one folded text is a substring of the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.corpus.overlap import RunIndex, RunSet, fold, folded_codes, shared_run, text_hashes, window_hashes

SMALL = st.text(alphabet="ab \n\u00a0é𝄞", max_size=60)


def brute(a: str, b: str, length: int) -> bool:
    folded, other = " ".join(a.split()), " ".join(b.split())
    return any(folded[i : i + length] in other for i in range(len(folded) - length + 1))


@settings(deadline=None)
@given(SMALL, SMALL, st.integers(1, 20))
def test_shared_run_is_the_definition(a: str, b: str, length: int) -> None:
    assert shared_run(a, b, length) == brute(a, b, length)


@settings(deadline=None)
@given(SMALL, SMALL, SMALL, st.text(alphabet="abcdef", min_size=8, max_size=12))
def test_a_planted_run_is_found_whatever_the_white_space(before: str, after: str, other: str, run: str) -> None:
    spaced = " ".join(run)
    broken = "\n\t ".join(run)
    assert RunIndex(f"{before} {spaced} {after}", len(spaced)).shares(f"{other} {broken} {before}")


@pytest.mark.parametrize("text", ["", " ", "short", "x" * 63])
def test_a_text_shorter_than_the_run_shares_nothing(text: str) -> None:
    assert not shared_run(text, text)


def test_sixty_four_characters_are_a_run_and_sixty_three_are_not() -> None:
    run = "".join(chr(ord("a") + i % 26) + str(i) for i in range(40))[:64]
    assert shared_run(f"one {run}", f"{run} two")
    assert not shared_run(f"one{run[:63]}!", f"{run[:63]}? two")


@settings(deadline=None)
@given(st.text(max_size=200))
def test_the_vectorised_folding_is_the_folding_and_its_places_point_into_the_text(text: str) -> None:
    codes, places = folded_codes(text)
    folded = fold(text)
    assert "".join(map(chr, codes)) == folded
    assert all(
        text[place] == letter or (letter == " " and text[place].isspace())
        for place, letter in zip(places, folded, strict=True)
    )


@settings(deadline=None)
@given(st.text(alphabet="abc", max_size=80), st.integers(1, 70))
def test_equal_windows_have_equal_hashes_and_different_ones_do_not(text: str, length: int) -> None:
    hashes = window_hashes(np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32), length)
    windows = [text[i : i + length] for i in range(len(text) - length + 1)]
    assert len(hashes) == len(windows)
    assert len(set(hashes.tolist())) == len(set(windows))


def test_hashes_do_not_depend_on_the_block_they_were_made_in() -> None:
    text = "".join(chr(97 + (i * i) % 25) for i in range(100_000))
    hashes = text_hashes(text)
    assert hashes[70_000] == text_hashes(text[70_000:70_064])[0]
    assert hashes[32_767] == text_hashes(text[32_767 : 32_767 + 64])[0]


@settings(deadline=None)
@given(st.lists(SMALL, min_size=1, max_size=4), st.lists(SMALL, max_size=4), st.integers(2, 12))
def test_a_set_of_runs_knows_which_were_met(own: list[str], others: list[str], length: int) -> None:
    runs = RunSet(text_hashes(text, length) for text in own)
    for other in others:
        runs.meet(text_hashes(other, length))
    met_elsewhere = {fold(o)[i : i + length] for o in others for i in range(len(fold(o)) - length + 1)}
    for text in own:
        expected = [fold(text)[i : i + length] in met_elsewhere for i in range(len(fold(text)) - length + 1)]
        assert runs.met(text_hashes(text, length)).tolist() == expected
