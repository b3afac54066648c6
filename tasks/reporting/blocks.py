"""What a page is made of: sections of prose, tables, plots and examples. Holds text only; the templates make HTML of it
and escape every character.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from tasks.reporting.charts import Chart

Tone = Literal["plain", "code", "strong", "link"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some words of a paragraph; ``target`` is a link's."""

    text: str
    tone: Tone = "plain"
    target: str = ""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text."""

    kind: ClassVar[str] = "paragraph"
    pieces: tuple[Piece, ...]
    note: bool = False
    """A remark or a thing that is missing, set apart by a rule at its side and the word in front."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text; the first column names the row, columns in ``words`` are words, in ``digests`` digests, the others
    numbers.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[int] = frozenset()
    digests: frozenset[int] = frozenset()
    folded: str = ""
    """Where not empty the table is folded under this line."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot and the table of the same numbers; None where that table stands right below."""

    kind: ClassVar[str] = "plot"
    chart: Chart
    table: Table | None


@dataclass(frozen=True, slots=True)
class Plots:
    """Plots side by side where there is room."""

    kind: ClassVar[str] = "plots"
    plots: tuple[Plot, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """A key number with its meaning."""

    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Keys:
    """The key numbers of a page."""

    kind: ClassVar[str] = "keys"
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """What to type."""

    kind: ClassVar[str] = "command"
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True, slots=True)
class Items:
    """A list; ``terms`` makes it one of words and their meanings."""

    kind: ClassVar[str] = "items"
    rows: tuple[tuple[Piece, ...], ...] = ()
    terms: tuple[tuple[str, str], ...] = ()
    folded: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """Characters of a corpus text; ``mark`` is what they are shown as."""

    text: str
    mark: Literal["", "token", "same"] = ""


@dataclass(frozen=True, slots=True)
class Quote:
    """A passage of the corpus under a line that says what it is, and where it comes from."""

    caption: str
    detail: str
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class ExampleView:
    """A dependency with its texts."""

    kind: ClassVar[str] = "example"
    title: str
    text: tuple[Paragraph, ...]
    table: Table
    quotes: tuple[Quote, ...]
    command: str


Block = Paragraph | Table | Plot | Plots | Keys | Command | Heading | Items | ExampleView


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page with its anchor."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page; ``key`` names what it was made from."""

    title: str
    kicker: str
    lead: tuple[Piece, ...]
    sections: tuple[Section, ...]
    key: str = ""
    language: str = field(default="en")


def prose(*parts: str | Piece, note: bool = False) -> Paragraph:
    """A paragraph of plain words and pieces."""
    return Paragraph(tuple(part if isinstance(part, Piece) else Piece(part) for part in parts), note)


def code(text: str) -> Piece:
    """Something to type, or a digest."""
    return Piece(text, "code")


def strong(text: str) -> Piece:
    """Words that matter most."""
    return Piece(text, "strong")


def link(text: str, target: str) -> Piece:
    """A link to a place of this page or a file beside it."""
    return Piece(text, "link", target)
