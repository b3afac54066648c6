"""What pages are put together from: histograms, drawings, visible text, and the rules that catch a faulty page."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.measurements.dependencies import bucket_bounds, bucket_of
from tasks.reporting.charts import WIDTH, Chart, Points, bars_chart, histogram_chart, lines_chart
from tasks.reporting.example_section import copied, same_words
from tasks.reporting.histograms import by_distance, entropies, gains
from tasks.reporting.visible import visible, visible_line
from tasks.reporting.wording import choices, decimal, share, significant
from tests.reported_page import ReportedPage

numbers = st.floats(-3, 1, width=32)


def inside(chart: Chart) -> None:
    """Every place of a drawing is a number, and inside it as far as marks go."""
    for shape in chart.shapes:
        for name, value in shape.attributes.items():
            if name in ("x", "x1", "x2", "width"):
                assert -1 <= float(value) <= WIDTH + 1, (chart.ident, shape)
            if name in ("y", "y1", "y2", "height"):
                assert 0 <= float(value) <= chart.height, (chart.ident, shape)
            assert "nan" not in value
            assert "inf" not in value


@settings(max_examples=40, deadline=None)
@given(st.lists(numbers | st.none(), max_size=60))
def test_bins_hold_every_value_once(values: list[float | None]) -> None:
    frame = pl.LazyFrame({"gain": pl.Series(values, dtype=pl.Float32)})
    found = gains(frame, "gain")
    known = [value for value in values if value is not None]
    assert found.total == len(known)
    bins = Counter(min(max(math.floor((value + 1) / 0.05 + 1e-5), 0), 39) for value in known)
    assert found.counts == bins
    for number, rows in found.counts.items():
        low, high = found.bounds(number)
        below = number == 0
        assert sum((below or low - 1e-5 <= v) and v < high + 1e-5 for v in known) >= rows
    inside(histogram_chart("c", "t", "s", "gain", [("all", found), ("again", found)], [(0.4, "kept above 0.4")]))


def test_entropy_bins_of_a_hand_made_column() -> None:
    frame = pl.LazyFrame({"entropy": [0.0, 0.24, 0.25, 5.6, float("nan"), None]})
    assert entropies(frame, "entropy").counts == {0: 2, 1: 1, 22: 1}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 300_000), st.floats(0, 1)), max_size=6), max_size=6))
def test_buckets_of_distance_are_those_of_the_measurements(samples: list[list[tuple[int, float]]]) -> None:
    rows = [
        [{"distance": d, "gain": g, "entropy_before": 2.0, "entropy_after": 1.0} for d, g in one] for one in samples
    ]
    parts = dict.fromkeys(("gain", "entropy_before", "entropy_after"), pl.Float64)
    kind = pl.List(pl.Struct({"distance": pl.Int32, **parts}))
    found = by_distance(pl.LazyFrame({"dependencies": pl.Series(rows, dtype=kind)}))
    wanted: dict[tuple[int, int], list[float]] = {}
    for distance, gain in (pair for one in samples for pair in one):
        wanted.setdefault(bucket_bounds(bucket_of(distance)), []).append(gain)
    assert {(b.low, b.high): b.count for b in found} == {bounds: len(gains) for bounds, gains in wanted.items()}
    for bucket in found:
        expected = wanted[bucket.low, bucket.high]
        assert bucket.gain == pytest.approx(sum(expected) / len(expected))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.none() | st.floats(-1e4, 1e4), min_size=1, max_size=8), st.floats(0, 10))
def test_lines_and_bars_stay_in_their_drawing(values: list[float | None], error: float) -> None:
    places = [f"round {number}" for number in range(len(values))]
    errors = tuple(error for _ in values)
    series = [Points("a", tuple(values), errors), Points("b", tuple(values))]
    inside(lines_chart("c", "t", "s", places, "nats", series))
    inside(bars_chart("c", "t", "s", [(p, abs(v or 0.0), "x") for p, v in zip(places, values, strict=True)]))


@given(st.text())
def test_text_shows_every_character_and_moves_none(text: str) -> None:
    shown = visible(text)
    assert all(c in "\n\t" or unicodedata.category(c)[0] not in "CZ" or c.isspace() for c in shown)
    assert not any(unicodedata.category(c) in ("Cf", "Zl", "Zp", "Cs", "Co", "Cn") for c in shown)
    assert "".join(run.text for run in same_words(text, "def")) == shown
    assert "\n" not in visible_line(text)


def test_words_are_underlined_as_words_and_copies_as_they_stand() -> None:
    runs = same_words("def define (def)", "def")
    assert [(run.text, run.mark) for run in runs if run.mark] == [("def", "same"), ("def", "same")]
    assert [run.text for run in same_words("a.b a.bc", ".b", whole=False) if run.mark] == [".b", ".b"]
    assert copied("raise Dir", "ty", "AppError(x)", 'all = ["DirtyAppError"]') == "DirtyAppError"
    assert copied("raise Dir", "ty", "AppError(x)", "nothing of it") == ""


def test_numbers_are_read_as_people_read_them() -> None:
    assert (share(0.0306), share(None), decimal(-0.0273, 3), decimal(1234.5, 0)) == ("3.1 %", "–", "−0.027", "1,234")
    assert (significant(4.34e12), significant(2e-5), significant(0.0), significant(1499.0)) == (
        "4.34 × 10¹²",
        "2.00 × 10⁻⁵",
        "0",
        "1,499",
    )
    assert (choices(0.0), choices(math.log(281)), choices(None)) == ("1.0", "281", "–")


def test_the_rules_of_a_page_find_what_breaks_them() -> None:
    good = '<!doctype html><html lang="en"><body><h1 id="a">x</h1></body></html>'
    assert not ReportedPage(good).faults
    for broken in (
        good.replace("</h1>", "</h1><script>1</script>"),
        good.replace("</h1>", '</h1><img src="x">'),
        good.replace("</h1>", '</h1><p id="a"></p>'),
        good.replace("</h1>", "</h1><h3>deep</h3>"),
        good.replace("</h1>", '</h1><a href="#none">x</a>'),
        good.replace("</h1>", '</h1><a href="http://x">x</a>'),
        good.replace("</h1>", "</h1><table><tr><td>1</td></tr></table>"),
        good.replace("</h1>", '</h1><svg role="img" aria-labelledby="a"></svg>'),
        good.replace(' lang="en"', ""),
        good.replace("</h1>", "</h1><div>"),
    ):
        assert ReportedPage(broken).faults, broken
