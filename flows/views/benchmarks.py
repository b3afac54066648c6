"""Benchmarks on the terminal: the machine, a row for every measurement, what each depends on."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tasks.benchmarks.measurement import Figure, Machine, Measurement, Report

_WORDS = {True: "met", False: "missed", None: ""}


def show_report(console: Console, report: Report) -> None:
    """Prints a report."""
    for line in machine_lines(report.machine):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("measurement", overflow="fold")
    table.add_column("median", justify="right", no_wrap=True)
    table.add_column("lowest to highest", justify="right", no_wrap=True)
    table.add_column("ratio", justify="right", no_wrap=True)
    table.add_column("target", justify="right", no_wrap=True)
    for measurement in report.measurements:
        for row, style in _rows(measurement):
            table.add_row(*row, style=style)
    console.print()
    console.print(table, highlight=False)
    console.print()
    for measurement in report.measurements:
        conditions = "; ".join(f"{name} {_shown(value)}" for name, value in measurement.conditions.items())
        console.print(f"{measurement.name}: {conditions}", style="dim", highlight=False, markup=False, soft_wrap=True)
    for line in report.left_out:
        console.print(f"Left out: {line}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"{report.size} size, {report.seconds / 60:.1f} min", highlight=False)


def machine_lines(machine: Machine) -> list[str]:
    """What the figures were measured on, in three lines."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return [
        f"{machine.processor}, {machine.cores} cores, {machine.threads} threads, {machine.memory_gb:g} GB memory,"
        f" {machine.gpu or 'no GPU'}",
        f"{machine.system}; {versions}",
        f"{machine.date}, load {machine.load_before:g} before and {machine.load_after:g} after",
    ]


def _rows(measurement: Measurement) -> list[tuple[tuple[str, ...], str]]:
    ratio = "" if measurement.ratio is None else _number(measurement.ratio)
    target = "" if measurement.target is None else f"{measurement.target} {_WORDS[measurement.met]}".strip()
    style = "" if measurement.met is None else "green" if measurement.met else "red"
    head = f"{measurement.name} [{measurement.unit}]"
    if measurement.ratio_of:
        head += f": {measurement.ratio_of}"
    rows: list[tuple[tuple[str, ...], str]] = [((head.replace("[", "\\["), "", "", ratio, target), style)]
    rows += [(_figure(figure, "ours" if n == 0 else ""), "") for n, figure in enumerate(_figures(measurement))]
    return rows


def _figures(measurement: Measurement) -> list[Figure]:
    return [measurement.ours, *measurement.alternatives]


def _figure(figure: Figure, whose: str) -> tuple[str, ...]:
    spread = "" if figure.repeats == 1 else f"{_number(figure.low)} to {_number(figure.high)}"
    label = figure.label if not whose or whose in figure.label else f"{whose}: {figure.label}"
    return (f"  {label}", _number(figure.value), spread, "", "")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _shown(value: str | int | float) -> str:
    return value if isinstance(value, str) else f"{value:,}"
