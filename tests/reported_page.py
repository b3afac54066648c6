"""A report as a reader without our code has it: parsed with the standard library, with the rules that every page keeps.

page = read_page(path)
page.table("From roots to samples")      rows of cells as text, the head first
page.text                                all that is shown
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

VOID = {"meta", "br", "img", "input", "link", "hr"}
UNSAFE = {"script", "iframe", "object", "embed", "form", "base"}


@dataclass
class _Table:
    caption: str = ""
    captions: int = 0
    rows: list[list[str]] = field(default_factory=list)


class ReportedPage(HTMLParser):
    """What is on a page, and what is wrong with it in ``faults``."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.faults: list[str] = []
        self.ids: list[str] = []
        self.named: list[str] = []
        self.links: list[str] = []
        self.headings: list[tuple[int, str]] = []
        self.tables: list[_Table] = []
        self.quotes: list[str] = []
        self.marks: list[tuple[str, str]] = []
        self.text = ""
        self.language = ""
        self.shapes: list[tuple[str, dict[str, str], str]] = []
        self._open: list[tuple[str, dict[str, str]]] = []
        self._svg: Counter[str] = Counter()
        self.feed(source)
        self.close()
        if self._open:
            self.faults.append(f"not closed: {[tag for tag, _ in self._open]}")
        self._finish(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        inside = [name for name, _ in self._open]
        if tag in UNSAFE or any(name.startswith("on") or name in ("src", "srcset") for name in given):
            self.faults.append(f"loads or runs something: <{tag} {given}>")
        if "id" in given:
            self.ids.append(given["id"])
        self.named += (given.get("aria-labelledby", "") + " " + given.get("aria-describedby", "")).split()
        if tag == "a":
            self.links.append(given["href"])
        if tag == "html":
            self.language = given.get("lang", "")
        if tag == "svg":
            self._svg = Counter()
            if given.get("role") != "img" or "aria-labelledby" not in given:
                self.faults.append("a plot without a role or a name")
        if "svg" in inside:
            self._svg[tag] += 1
            self.shapes.append((tag, given, ""))
        if tag == "table":
            self.tables.append(_Table())
        if tag == "caption":
            self.tables[-1].captions += 1
        if tag == "tr":
            self.tables[-1].rows.append([])
        if tag in ("th", "td"):
            self.tables[-1].rows[-1].append("")
        if tag == "th" and given.get("scope") not in ("row", "col"):
            self.faults.append("a head cell without a scope")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        if tag == "blockquote":
            self.quotes.append("")
        if tag in ("mark", "u"):
            self.marks.append((tag, ""))
        if tag not in VOID:
            self._open.append((tag, given))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1][0] != tag:
            self.faults.append(f"</{tag}> closes {self._open[-1:]}")
            return
        self._open.pop()
        if tag == "svg" and (self._svg["title"], self._svg["desc"]) != (1, 1):
            self.faults.append("a plot without title and description")

    def handle_data(self, data: str) -> None:
        inside = [name for name, _ in self._open]
        if "style" in inside:
            return
        hidden = any(given.get("aria-hidden") == "true" for _, given in self._open)
        self.text += "" if hidden else data
        for tag in reversed(inside):
            if tag in ("th", "td") and not hidden:
                self.tables[-1].rows[-1][-1] += data
            if tag == "caption":
                self.tables[-1].caption += data
            if re.fullmatch("h[1-6]", tag):
                self.headings[-1] = (self.headings[-1][0], self.headings[-1][1] + data)
            if tag == "blockquote":
                self.quotes[-1] += data
            if tag in ("mark", "u"):
                self.marks[-1] = (tag, self.marks[-1][1] + data)
            if tag == "text":
                self.shapes[-1] = (*self.shapes[-1][:2], data)

    def _finish(self, source: str) -> None:
        self.faults += [f"id {name} occurs {n} times" for name, n in Counter(self.ids).items() if n > 1]
        self.faults += [f"nothing has id {name}" for name in self.named if name not in self.ids]
        places = [target[1:] for target in self.links if target[0] == "#"]
        self.faults += [f"no place {place}" for place in places if place not in self.ids]
        self.faults += [f"leads out: {target}" for target in self.links if re.match(r"\w+:|//", target)]
        self.faults += ["no caption" for table in self.tables if table.captions != 1 or not table.caption]
        widths = [{len(row) for row in table.rows} for table in self.tables]
        self.faults += [f"rows of {found} cells" for found in widths if len(found) > 1]
        levels = [level for level, _ in self.headings]
        if levels[:1] != [1] or levels.count(1) != 1 or any(b > a + 1 for a, b in pairwise(levels)):
            self.faults.append(f"headings {levels}")
        if not self.language or not source.startswith("<!doctype html>"):
            self.faults.append("no language or no doctype")
        if "url(" in source or "@import" in source or re.search("https?://", source):
            self.faults.append("names something to load")

    def table(self, caption: str) -> list[list[str]]:
        """The rows of the first table whose caption begins so."""
        return next(table.rows for table in self.tables if table.caption.startswith(caption))

    def column(self, caption: str, name: str) -> dict[str, str]:
        """First cell of each row → its cell under ``name``."""
        head, *rows = self.table(caption)
        return {row[0]: row[head.index(name)] for row in rows}


def read_page(path: Path) -> ReportedPage:
    """A written page; everything about its form is in order."""
    page = ReportedPage(path.read_text(encoding="utf-8"))
    assert not page.faults
    return page
