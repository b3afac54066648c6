"""Plots of a round: how uncertain the policy was, where the thresholds lay, and what the candidates gained.

Counting is done by polars in a stream; only the histograms' bins are in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from storage.files import replacing

PLOTS = ("entropy.png", "thresholds.png", "gains.png")
BINS = 60
GAIN_RANGE = (-1.0, 1.0)
BLUE, ORANGE, GREY = "#2a6f97", "#d17a22", "#8a8a8a"


def write_plots(
    folder: Path, tables: Mapping[str, pl.DataFrame | pl.LazyFrame], title: str, epsilon: float | None = None
) -> list[Path]:
    """Writes ``PLOTS`` into a folder and returns their paths.

    ``tables`` are the round's screened, positions and verdicts; ``epsilon`` draws the line above which a pair is kept.
    """
    lazy = {name: frame.lazy() for name, frame in tables.items()}
    figures = (
        _entropy(lazy["positions"], lazy["screened"], title),
        _thresholds(lazy["screened"], title),
        _gains(lazy["verdicts"], title, epsilon),
    )
    return [_save(folder / name, figure) for name, figure in zip(PLOTS, figures, strict=True)]


def _entropy(positions: pl.LazyFrame, screened: pl.LazyFrame, title: str) -> Figure:
    figure, axes = _figure(f"{title}: entropy", "entropy, nats", "share")
    high = max(_maximum(positions, "entropy"), _maximum(screened, "mean"))
    _bars(axes, screened, "mean", (0.0, high), "mean of a root", GREY)
    _bars(axes, positions, "entropy", (0.0, high), "selected position", BLUE)
    axes.legend(loc="upper right")
    return figure


def _thresholds(screened: pl.LazyFrame, title: str) -> Figure:
    figure, axes = _figure(f"{title}: thresholds of the roots", "threshold, nats", "share")
    _bars(axes, screened, "threshold", (0.0, _maximum(screened, "threshold")), "threshold", BLUE)
    mean = screened.select(pl.col("threshold").mean()).collect().item()
    if mean is not None:
        axes.axvline(mean, color=ORANGE, label=f"mean {mean:.2f}")
    axes.legend(loc="upper right")
    return figure


def _gains(verdicts: pl.LazyFrame, title: str, epsilon: float | None) -> Figure:
    figure, axes = _figure(f"{title}: gain of the candidates", "gain, share of the entropy", "share")
    _bars(axes, verdicts, "placebo_gain", GAIN_RANGE, "random chunk of the same length", GREY)
    _bars(axes, verdicts, "gain", GAIN_RANGE, "retrieved candidate", BLUE)
    if epsilon is not None:
        axes.axvline(epsilon, color=ORANGE, label=f"kept above {epsilon:g}")
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.legend(loc="upper right")
    return figure


def histogram(frame: pl.LazyFrame, column: str, span: tuple[float, float], bins: int = BINS) -> list[int]:
    """Counts of a column's values in ``bins`` equal bins over ``span``; values outside fall into the outer bins."""
    low, high = span
    width = (high - low) / bins
    bin_of = ((pl.col(column).cast(pl.Float64) - low) / width).floor().clip(0, bins - 1).cast(pl.Int32)
    counted = (
        frame.filter(pl.col(column).is_not_null())
        .select(bin_of.alias("bin"))
        .group_by("bin")
        .len()
        .collect(engine="streaming")
    )
    found = dict(counted.iter_rows())
    return [int(found.get(number, 0)) for number in range(bins)]


def _bars(axes: Axes, frame: pl.LazyFrame, column: str, span: tuple[float, float], label: str, colour: str) -> None:
    counts = histogram(frame, column, span)
    total, width = sum(counts), (span[1] - span[0]) / BINS
    shares: Sequence[float] = [count / total if total else 0.0 for count in counts]
    edges = [span[0] + width * number for number in range(BINS)]
    axes.bar(edges, shares, width=width, align="edge", color=colour, alpha=0.65, label=f"{label} ({total:,})")


def _maximum(frame: pl.LazyFrame, column: str) -> float:
    return max(float(frame.select(pl.col(column).max()).collect().item() or 0.0), 1e-6)


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(path: Path, figure: Figure) -> Path:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    return path
