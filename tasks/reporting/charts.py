"""Plots as small drawings: shapes with their places, which the template writes as inline SVG.

Colours come from the page's style by class, so a plot follows light and dark. Series differ in shape as well as in
colour: filled bars and a dashed outline, circles on a full line and squares on a dashed one. A drawing is 360 units
wide, about the width of a phone, so that its 12-unit letters stay readable there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.reporting.histograms import Histogram
from tasks.reporting.wording import decimal, share, significant

WIDTH = 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 16, 22, 42
_HEIGHT = 220
_ROW = 36
_LEGEND = 18
_FLAT = 1e-9
"""Values this close to each other have no range of their own."""
_LETTER = 6.5
"""Width of a letter, about."""
_MARKERS = ("circle", "square", "diamond", "triangle")


@dataclass(frozen=True, slots=True)
class Shape:
    """One mark: ``rect``, ``line``, ``path`` or ``text``, its SVG attributes and its class in the page's style."""

    kind: str
    style: str
    attributes: Mapping[str, str]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing; ``ident`` is unique in its page, ``summary`` says in words what is to be seen."""

    ident: str
    title: str
    summary: str
    height: int
    shapes: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Points:
    """A line of a line plot: a value per place (None where there is none), and half the height of its error bar."""

    name: str
    values: tuple[float | None, ...]
    errors: tuple[float | None, ...] = ()


def histogram_chart(
    ident: str,
    title: str,
    summary: str,
    axis: str,
    series: Sequence[tuple[str, Histogram]],
    marks: Sequence[tuple[float, str]] = (),
) -> Chart:
    """One histogram as bars, a second one over it as a dashed outline; heights are shares of each one's rows.

    All have the same bins. ``marks`` are vertical lines at values of the axis, with their words.
    """
    numbers = [number for _, found in series for number in found.counts]
    if not numbers:
        return Chart(ident, title, summary, 40, (_text(WIDTH / 2, 24, "nothing to show", "middle"),))
    basis = series[0][1]
    first, stop = min(numbers), max(numbers) + 1
    for value, _ in marks:
        place = (value - basis.low) / basis.width
        first, stop = min(first, math.floor(place)), max(stop, math.ceil(place))
    low, high = basis.bounds(first)[0], basis.bounds(stop - 1)[1]
    heights = [
        {number: rows / found.total for number, rows in found.counts.items()} if found.total else {}
        for _, found in series
    ]
    top = _nice_top(max(max(shares.values(), default=0.0) for shares in heights))
    x, y = _scale(low, high, _LEFT, WIDTH - _RIGHT), _scale(0.0, top, _HEIGHT - _BOTTOM, _TOP)
    shapes = _axes(axis, _ticks(low, high), _steps(top), x, y)
    for number, height in sorted(heights[0].items()):
        start, end = basis.bounds(number)
        shapes.append(_rect(x(start) + 0.5, y(height), x(end) - x(start) - 1, y(0.0) - y(height), "bar a"))
    for shares in heights[1:]:
        path = [f"M{_f(x(low))},{_f(y(0.0))}"]
        for number in range(first, stop):
            (start, end), level = basis.bounds(number), _f(y(shares.get(number, 0.0)))
            path.append(f"L{_f(x(start))},{level}L{_f(x(end))},{level}")
        shapes.append(Shape("path", "outline b", {"d": "".join([*path, f"L{_f(x(high))},{_f(y(0.0))}"])}))
    for value, words in marks:
        shapes.append(_line(x(value), y(0.0), x(value), _TOP - 6, "limit"))
        anchor, shift = ("end", -4) if x(value) > WIDTH / 2 else ("start", 4)
        shapes.append(_text(x(value) + shift, _TOP - 8, words, anchor))
    if len(series) == 1:
        return Chart(ident, title, summary, _HEIGHT, tuple(shapes))
    for place, (name, _) in enumerate(series):
        middle = _HEIGHT + 8 + place * _LEGEND
        dashes = _line(_LEFT, middle, _LEFT + 20, middle, "outline b")
        shapes.append(dashes if place else _rect(_LEFT, middle - 5, 20, 10, "bar a"))
        shapes.append(_text(_LEFT + 28, middle + 4, name, "start"))
    return Chart(ident, title, summary, _HEIGHT + 4 + len(series) * _LEGEND, tuple(shapes))


def bars_chart(
    ident: str, title: str, summary: str, rows: Sequence[tuple[str, float, str]], *, full: float | None = None
) -> Chart:
    """A bar per row under its name and its value in words; the longest, or ``full``, takes the whole width."""
    longest = full or max((value for _, value, _ in rows), default=0.0) or 1.0
    shapes: list[Shape] = []
    for place, (name, value, words) in enumerate(rows):
        top = place * _ROW
        shapes.append(_text(0, top + 13, name, "start"))
        shapes.append(_text(WIDTH, top + 13, words, "end", "value"))
        shapes.append(_rect(0, top + 19, WIDTH, 10, "track"))
        if value > 0:
            shapes.append(_rect(0, top + 19, max(1.0, WIDTH * min(value / longest, 1.0)), 10, "bar a"))
    return Chart(ident, title, summary, max(len(rows), 1) * _ROW, tuple(shapes))


def lines_chart(
    ident: str, title: str, summary: str, places: Sequence[str], axis: str, series: Sequence[Points]
) -> Chart:
    """A line per series over named places, every value with a marker and, where given, an error bar."""
    ends = [
        value + sign * (error or 0.0)
        for points in series
        for value, error in zip(points.values, points.errors or (None,) * len(points.values), strict=True)
        if value is not None
        for sign in (-1, 1)
    ]
    if not ends:
        return Chart(ident, title, summary, 40, (_text(WIDTH / 2, 24, "nothing to show", "middle"),))
    low, high = min(0.0, *ends), max(0.0, *ends)
    high = high if high - low > _FLAT else low + 1.0
    steps = _ticks(low, high, wanted=5)
    gap = steps[1] - steps[0] if len(steps) > 1 else high - low
    low, high = min(low, math.floor(low / gap) * gap), max(high, math.ceil(high / gap) * gap)
    x = _scale(-0.5, len(places) - 0.5, _LEFT, WIDTH - _RIGHT)
    y = _scale(low, high, _HEIGHT - _BOTTOM, _TOP)
    shapes = [_text(4, 12, axis, "start")]
    room = (WIDTH - _LEFT - _RIGHT) / max(len(places), 1)
    stagger = 14 * (max(map(len, places), default=0) * _LETTER > room)
    for value in _ticks(low, high, wanted=5):
        shapes.append(_line(_LEFT, y(value), WIDTH - _RIGHT, y(value), "axis" if value == 0 else "grid"))
        shapes.append(_text(_LEFT - 6, y(value) + 4, significant(value, 2), "end"))
    shapes += [
        _text(x(place), _HEIGHT - _BOTTOM + 18 + (place % 2) * stagger, name, "middle")
        for place, name in enumerate(places)
    ]
    width = 12.0
    for number, points in enumerate(series):
        style = "ab"[number % 2]
        shift = (number - (len(series) - 1) / 2) * width
        known = [(x(place) + shift, value, place) for place, value in enumerate(points.values) if value is not None]
        path = "".join(f"{'M' if k == 0 else 'L'}{_f(at)},{_f(y(value))}" for k, (at, value, _) in enumerate(known))
        shapes.append(Shape("path", f"stroke {style}", {"d": path}))
        for at, value, place in known:
            error = points.errors[place] if points.errors else None
            if error:
                shapes.append(_line(at, y(value - error), at, y(value + error), f"error {style}"))
            shapes.append(_marker(_MARKERS[number % len(_MARKERS)], at, y(value), style))
    if len(series) == 1:
        return Chart(ident, title, summary, _HEIGHT, tuple(shapes))
    for number, points in enumerate(series):
        middle, style = _HEIGHT + 8 + number * _LEGEND, "ab"[number % 2]
        shapes.append(_line(_LEFT, middle, _LEFT + 20, middle, f"stroke {style}"))
        shapes.append(_marker(_MARKERS[number % len(_MARKERS)], _LEFT + 10, middle, style))
        shapes.append(_text(_LEFT + 28, middle + 4, points.name, "start"))
    return Chart(ident, title, summary, _HEIGHT + 4 + len(series) * _LEGEND, tuple(shapes))


@dataclass(frozen=True, slots=True)
class _scale:
    """Linear from values to units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _axes(axis: str, ticks: Sequence[float], steps: Sequence[tuple[float, str]], x: _scale, y: _scale) -> list[Shape]:
    shapes = []
    for value, words in steps:
        shapes.append(_line(_LEFT, y(value), WIDTH - _RIGHT, y(value), "axis" if value == 0 else "grid"))
        shapes.append(_text(_LEFT - 6, y(value) + 4, words, "end"))
    for value in ticks:
        digits = 0 if all(abs(tick - round(tick)) < 1e-9 for tick in ticks) else 2 if ticks[1] - ticks[0] < 0.1 else 1
        shapes.append(_text(x(value), _HEIGHT - _BOTTOM + 16, decimal(value, digits), "middle"))
    shapes.append(_text((_LEFT + WIDTH - _RIGHT) / 2, _HEIGHT - 6, axis, "middle"))
    return shapes


def _ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Round values within [low, high], at most about ``wanted``."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _nice_top(value: float) -> float:
    return next((top for top in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8) if top >= value), 1.0)


def _steps(top: float) -> list[tuple[float, str]]:
    values = [top * part / 2 for part in range(3)]
    return [(value, share(value, 0 if abs(100 * value - round(100 * value)) < 1e-9 else 1)) for value in values]


def _f(value: float) -> str:
    return f"{value:.1f}"


def _rect(x: float, y: float, width: float, height: float, style: str) -> Shape:
    return Shape("rect", style, {"x": _f(x), "y": _f(y), "width": _f(max(width, 0.1)), "height": _f(max(height, 0.0))})


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Shape:
    return Shape("line", style, {"x1": _f(x1), "y1": _f(y1), "x2": _f(x2), "y2": _f(y2)})


def _text(x: float, y: float, words: str, anchor: str, style: str = "") -> Shape:
    return Shape("text", style, {"x": _f(x), "y": _f(y), "text-anchor": anchor}, words)


def _marker(kind: str, x: float, y: float, style: str) -> Shape:
    r = 5.0
    paths = {
        "circle": f"M{_f(x - r)},{_f(y)}a{_f(r)},{_f(r)} 0 1,0 {_f(2 * r)},0a{_f(r)},{_f(r)} 0 1,0 {_f(-2 * r)},0z",
        "square": f"M{_f(x - r)},{_f(y - r)}h{_f(2 * r)}v{_f(2 * r)}h{_f(-2 * r)}z",
        "diamond": f"M{_f(x)},{_f(y - 6.5)}l6.5,6.5l-6.5,6.5l-6.5,-6.5z",
        "triangle": f"M{_f(x)},{_f(y - 6)}l6,11h-12z",
    }
    return Shape("path", f"marker {style}", {"d": paths[kind]})
