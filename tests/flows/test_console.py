"""The end of a campaign is readable at any width, with and without colour, and says nothing that is not so."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import pytest
from rich.console import Console

from flows.views.console import RoundRow, WorkedExample, rounds_table, show_campaign

DIGESTS = [f"{number:x}" * 64 for number in range(1, 8)]


def row(number: int) -> RoundRow:
    return RoundRow(
        round=number,
        version=DIGESTS[number],
        policy=DIGESTS[number - 1],
        next_policy=None if number == 3 else DIGESTS[number + 1],
        roots=48,
        positions=816,
        candidates=13056,
        positives=391,
        mean_gain=0.683,
        negatives=377,
        samples=57,
        tokens=116736,
        probe_overlap=None if number == 1 else 0.612,
        screening_seconds=73.2,
        training_seconds=61.0,
        context_gain_before=0.041,
        context_gain_after=0.052,
    )


EXAMPLE = WorkedExample(
    round=3,
    root_before="def merge(left, right):\n    return [*left, *",
    token="right",
    root_after="]",
    context="merge(left, right) joins [two] lists",
    entropy_before=3.21,
    entropy_after=0.84,
    gain=0.74,
    negative="split(text) cuts a text",
)


def printed(width: int, *, colour: bool = False, rows: list[RoundRow] | None = None) -> str:
    system: Literal["truecolor"] | None = "truecolor" if colour else None
    console = Console(file=io.StringIO(), width=width, force_terminal=colour, color_system=system)
    console.no_color = not colour
    show_campaign(console, Path("/data/my home"), rows or [row(1), row(2), row(3)], EXAMPLE)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize("width", [52, 60, 80, 200])
def test_digests_and_numbers_are_whole_at_every_width(width: int) -> None:
    text = printed(width)
    for number in (1, 2, 3):
        assert text.count(DIGESTS[number][:12]) >= 2  # as version, and as policy
    assert "13,056" in text
    assert "116,736" in text
    assert "…" not in text.split("Where to look")[0].split("one dependency")[0]


@pytest.mark.parametrize("width", [52, 80])
def test_the_table_keeps_within_the_terminal(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    console.print(rounds_table([row(1), row(2), row(3)], width))
    file = console.file
    assert isinstance(file, io.StringIO)
    assert max(map(len, file.getvalue().splitlines())) <= width


def test_what_is_not_known_is_a_dash_and_not_a_zero() -> None:
    lines = printed(100).splitlines()
    overlap = next(line for line in lines if line.startswith("probe overlap"))
    assert overlap.split()[-5:] == ["–", "61.2", "%", "61.2", "%"]
    assert next(line for line in lines if line.startswith("policy trained")).split()[-1] == "–"


def test_without_a_terminal_it_is_plain_text() -> None:
    assert "\x1b" not in printed(80)
    assert "\x1b[" in printed(80, colour=True)


def test_the_example_is_shown_as_it_is_brackets_included() -> None:
    text = printed(100)
    assert "[*left, *⟦right⟧]" in text
    assert "joins [two] lists" in text
    assert "3.21 nats without the context, 0.84 with it: ΔI = 0.74" in text


def test_the_commands_can_be_pasted_for_a_folder_with_a_blank() -> None:
    text = printed(60)
    assert "audit 3" in text
    assert "--home '/data/my home' " in text
    assert "PREFECT_HOME='/data/my home/prefect' " in text
    assert "--backend-store-uri 'sqlite:////data/my home/mlflow/mlflow.db'" in text


def test_other_names_are_ignored_when_a_row_is_made() -> None:
    made = RoundRow.of({"round": 1, "version": "a", "policy": "b", "excluded": 7, "roots": 3})
    assert made == RoundRow(round=1, version="a", policy="b", roots=3)
