"""``policylong bench``: which benchmarks run, what is said to be left out, and what is printed. No figure is judged."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console

from flows import benching
from flows.benching import IN_ALL, NAMES, Bench, bench
from flows.commands.benching import What
from flows.views.benchmarks import show_report
from storage.home import Home
from tasks.benchmarks.measurement import Figure, Measurement, Report, Target
from tasks.benchmarks.sizes import SMALL


def row(name: str, ratio: float) -> Measurement:
    return Measurement(
        name=name,
        unit="s",
        ours=Figure.of("one way", [2.0, 1.0, 4.0]),
        alternatives=(Figure.of("another way", [1234.5]),),
        ratio=ratio,
        ratio_of="another over one",
        target=Target(sense="at least", value=5),
        conditions={"roots": 1200, "numbers": "float32"},
    )


@pytest.fixture
def report(home: Home, monkeypatch: pytest.MonkeyPatch) -> Report:
    monkeypatch.setattr(Bench, "run", lambda self, name: [row(name, 4.0), row(f"{name} again", 6.0)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(benching.faiss_engine, "faiss_is_there", lambda: False)
    return bench(home, IN_ALL, SMALL, 1, 0.5)


def test_the_command_offers_every_benchmark_and_all_of_them_but_scale() -> None:
    assert [what.value for what in What] == [*NAMES, "all"]
    assert set(NAMES) - set(IN_ALL) == {"scale"}


def test_a_report_has_the_rows_in_order_and_says_what_is_missing(report: Report) -> None:
    assert [one.name for one in report.measurements][::2] == list(IN_ALL)
    assert len(report.left_out) == 3
    assert any("FAISS" in line for line in report.left_out)
    assert any("GPU" in line for line in report.left_out)
    assert report.machine.load_before == 0.5
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_the_table_shows_medians_spread_and_whether_a_target_is_met(report: Report) -> None:
    page = io.StringIO()
    show_report(Console(file=page, width=160), report)
    text = page.getvalue()
    assert "ours: one way" in text
    assert "1 to 4" in text
    assert "1,234" in text or "1,235" in text
    assert "≥ 5 missed" in text
    assert "≥ 5 met" in text
    assert "roots 1,200" in text
    assert all(f"Left out: {line}" in text for line in report.left_out)
