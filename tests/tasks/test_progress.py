"""Progress goes to stderr, counts right from several threads, and stays out of logs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks import progress as module
from tasks.progress import progress, rate_text, track


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that progress sees, to be set by the test."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_short_work_leaves_no_line_in_a_log(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with progress("embedding", total=10, unit="chunks") as advance:
        clock[0] = 9.0
        advance(10)
    assert capsys.readouterr() == ("", "")


def test_long_work_leaves_a_line_every_ten_seconds_and_one_at_its_end(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    with progress("embedding", total=100, unit="chunks") as advance:
        for second in range(1, 26):
            clock[0] = float(second)
            advance(4)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "embedding: 40 of 100 chunks, 4.00 chunks/s, 10 s",
        "embedding: 80 of 100 chunks, 4.00 chunks/s, 20 s",
        "embedding: 100 of 100 chunks, 4.00 chunks/s, 25 s",
    ]


def test_the_last_line_is_not_said_twice(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with progress("embedding", total=8, unit="chunks") as advance:
        clock[0] = 12.0
        advance(8)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_track_gives_every_item_once_and_in_order() -> None:
    assert list(track(iter("abc"), None, "letters", "letters")) == ["a", "b", "c"]


def test_concurrent_work_on_a_terminal_shares_one_display(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_on_terminal", lambda: True)

    def work(number: int) -> int:
        with progress(f"shard [{number}]", total=50, unit="roots") as advance:
            for _ in range(50):
                advance(1)
        return number

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(8))) == list(range(8))
    assert module._Bar._bars is None
    assert capsys.readouterr().out == ""


def test_an_error_inside_ends_the_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_on_terminal", lambda: True)
    with pytest.raises(KeyboardInterrupt), progress("work", total=None, unit="rows"):
        raise KeyboardInterrupt
    assert module._Bar._bars is None


@pytest.mark.parametrize(
    ("count", "seconds", "text"), [(810, 10, "81 rows/s"), (5, 10, "0.50 rows/s"), (3, 0, "0.00 rows/s")]
)
def test_rates_have_decimals_only_where_they_matter(count: float, seconds: float, text: str) -> None:
    assert rate_text(count, seconds, "rows") == text
