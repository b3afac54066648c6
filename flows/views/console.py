"""What a campaign shows at its end: a table of its rounds, one dependency to look at, and where to look next.

One column per round, one line per figure, so that it fits a narrow terminal; without a terminal it is plain text.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from tasks.reporting.visible import visible, visible_line

SHOWN = 12
"""Characters of a digest; enough to name a version or policy on the command line."""
_LABEL_WIDTH, _COLUMN_WIDTH = 36, SHOWN + 2


@dataclass(frozen=True, slots=True)
class RoundRow:
    """The figures of one round; ``None`` is shown as a dash."""

    round: int
    version: str
    policy: str
    """Digest of the policy that screened."""
    next_policy: str | None = None
    """Digest of the policy trained on this round."""
    roots: int | None = None
    positions: int | None = None
    candidates: int | None = None
    positives: int | None = None
    mean_gain: float | None = None
    """Mean ΔI of the kept pairs."""
    negatives: int | None = None
    samples: int | None = None
    tokens: int | None = None
    probe_overlap: float | None = None
    """Share of the probe set's positives, of this and the round before, that are in both."""
    screening_seconds: float | None = None
    training_seconds: float | None = None
    context_gain_before: float | None = None
    """Loss with a short context minus loss with a long one, nats per token, under the policy that screened."""
    context_gain_after: float | None = None
    """The same under the policy trained on this round."""
    context_gain_error: float | None = None
    """Standard error of the gain after, over windows."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> RoundRow:
        """A row from a mapping with these names; others are ignored."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


@dataclass(frozen=True, slots=True)
class WorkedExample:
    """One dependency, for people: which context made which token less uncertain."""

    round: int
    root_before: str
    """Text of the root up to the token."""
    token: str
    root_after: str
    context: str
    """The chunk that helped."""
    entropy_before: float
    """Nats, without the chunk."""
    entropy_after: float
    gain: float
    negative: str | None = None
    """A hard negative of this context."""
    query: str = ""
    root_title: str = ""
    context_title: str = ""
    negative_title: str = ""


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 10 else f"{value:,.0f} s"


def _nats(value: float) -> str:
    return f"{value:.3f}"


def _digest(value: str) -> str:
    return value[:SHOWN]


_LINES: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("dataset version", "version", _digest),
    ("policy that screened", "policy", _digest),
    ("policy trained on it", "next_policy", _digest),
    ("roots screened", "roots", _count),
    ("positions", "positions", _count),
    ("candidates", "candidates", _count),
    ("verified positives", "positives", _count),
    ("their mean ΔI", "mean_gain", _nats),
    ("hard negatives", "negatives", _count),
    ("samples", "samples", _count),
    ("tokens", "tokens", _count),
    ("probe overlap with the round before", "probe_overlap", _share),
    ("screening", "screening_seconds", _seconds),
    ("training", "training_seconds", _seconds),
    ("context gain before (nats/token)", "context_gain_before", _nats),
    ("context gain after (nats/token)", "context_gain_after", _nats),
    ("standard error of the gain after", "context_gain_error", _nats),
)


def rounds_table(rows: Sequence[RoundRow], width: int) -> RenderableType:
    """The table of rounds; in several pieces when ``width`` characters do not hold a column for each."""
    columns = max(1, (width - _LABEL_WIDTH) // _COLUMN_WIDTH)
    pieces: list[RenderableType] = []
    for start in range(0, len(rows), columns):
        shown = rows[start : start + columns]
        table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
        table.add_column("")
        for row in shown:
            table.add_column(f"round {row.round}", justify="right", min_width=SHOWN, no_wrap=True)
        for label, name, form in _LINES:
            values = (getattr(row, name) for row in shown)
            table.add_row(label, *("–" if value is None else form(value) for value in values))
        pieces += [table, Text()]
    return Group(*pieces[:-1])


def example_panel(example: WorkedExample) -> RenderableType:
    """The worked example, in colour where there is any: token, context that helped, entropies, a hard negative."""
    token = visible_line(example.token) or "␣"
    parts: list[RenderableType] = [
        _titled("root", example.root_title),
        Text.assemble(
            (_tail(example.root_before), "dim"), (f"⟦{token}⟧", "bold red"), (_head(example.root_after), "dim")
        ),
        Text(),
        _titled("context that helped", example.context_title),
        Text(_head(example.context, 700), style="green"),
        Text(),
        Text.assemble(
            "entropy of the prediction of ",
            (f"⟦{token}⟧", "bold red"),
            ": ",
            (f"{example.entropy_before:.2f}", "bold red"),
            " nats without the context, ",
            (f"{example.entropy_after:.2f}", "bold green"),
            " with it: ",
            (f"ΔI = {example.gain:.2f}", "bold"),
        ),
    ]
    if example.negative is not None:
        parts += [
            Text(),
            _titled("a hard negative of this context", example.negative_title),
            Text(_head(example.negative), style="yellow"),
        ]
    return Group(Rule(f"one dependency of round {example.round}", align="left"), *parts, Rule())


def where_next(home: Path, rows: Sequence[RoundRow]) -> RenderableType:
    """Dataset versions, folder, and the commands that open the pages and audit a round."""
    place = shlex.quote(str(home))
    option = "" if home == Path(".policylong").absolute() else f" --home {place}"
    last = rows[-1].round if rows else 1
    lines = [Text("Where to look next", style="bold")]
    lines += [Text(f"  round {row.round}: {home}/versions/{row.version[:16]}", overflow="fold") for row in rows]
    for label, command in (
        ("audit a round", f"{program('policylong')}{option} audit {last}"),
        ("what is there", f"{program('policylong')}{option} status"),
        ("Prefect's page", f"PREFECT_HOME={shlex.quote(str(home / 'prefect'))} {program('prefect')} server start"),
        (
            "MLflow's page",
            f"{program('mlflow')} server --host 127.0.0.1"
            f" --backend-store-uri {shlex.quote(f'sqlite:///{home}/mlflow/mlflow.db')}",
        ),
    ):
        lines += [Text(f"  {label}:"), Text(f"    {command}", style="cyan", overflow="fold")]
    return Group(*lines)


def program(name: str) -> str:
    """How to call a program of this environment from here: by name when it is on the path, else by its place."""
    place = Path(sys.executable).parent / name
    found = shutil.which(name)
    if not place.exists() or (found and Path(found).resolve() == place.resolve()):
        return name
    here = Path.cwd()
    return shlex.quote(str(place.relative_to(here) if place.is_relative_to(here) else place))


def show_campaign(console: Console, home: Path, rows: Sequence[RoundRow], example: WorkedExample | None) -> None:
    """Prints all of it."""
    console.print()
    console.print(rounds_table(rows, console.width), highlight=False, soft_wrap=False)
    console.print()
    if example is not None:
        console.print(example_panel(example), highlight=False)
        console.print()
    for line in getattr(where_next(home, rows), "renderables", ()):
        console.print(line, highlight=False, soft_wrap=True)


def _titled(label: str, title: str) -> RenderableType:
    return Text.assemble((label, "bold"), (f"  {visible_line(title)}" if title else "", "dim"))


def _head(text: str, limit: int = 300) -> str:
    return visible(text if len(text) <= limit else f"{text[:limit].rstrip()} …")


def _tail(text: str, limit: int = 300) -> str:
    return visible(text if len(text) <= limit else f"… {text[-limit:].lstrip()}")
