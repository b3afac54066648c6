"""A page for everybody: landmarks in order, a way past them, colours that can be told apart in light, dark and print.

The limits are those of WCAG 2.2, level AA: 4.5 to 1 for text, 3 to 1 for what a plot is read by.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from storage.home import Home
from tasks.reporting import page as pages
from tasks.reporting.writing import campaign_path, round_path, write_campaign
from tests.rounds import build_rounds

STYLE = (Path(pages.__file__).parent / "templates/style.css").read_text(encoding="utf-8")
TEXT = (("ink", "page"), ("ink", "panel"), ("soft", "page"), ("soft", "panel"), ("link", "page"), ("link", "panel"))
SHAPES = (("a", "page"), ("b", "page"), ("soft", "page"), ("ink", "page"), ("a", "track"))


class Outline(HTMLParser):
    """Landmarks and what can be reached by the keyboard, in the order of the page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def names(self, *wanted: str) -> list[str]:
        return [tag for tag, _ in self.tags if tag in wanted]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Outline]:
    """The page of a campaign and that of a round."""
    rounds = build_rounds(Home.open(tmp_path_factory.mktemp("rounds") / "home"), 2)
    home = rounds[0].home
    write_campaign(home, "world")
    paths = (campaign_path(home, "world"), round_path(home, rounds[1].version))
    return [Outline(path.read_text(encoding="utf-8")) for path in paths]


def palettes() -> dict[str, dict[str, str]]:
    """{medium: {name: colour}} of the style sheet; a dark page takes what it does not set from the light one."""
    found = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block))
        for block in re.findall(r":root \{(.*?)\}", STYLE, re.S)
    ]
    assert len(found) == 3, "light, dark and print"
    light, dark, ink = found
    return {"light": light, "dark": light | dark, "print": light | ink}


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_ratio_is_that_of_the_guidelines() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("medium", ["light", "dark", "print"])
def test_text_and_plots_stand_out(medium: str) -> None:
    colours = palettes()[medium]
    for front, back in TEXT:
        assert contrast(colours[front], colours[back]) >= 4.5, (medium, front, back)
    assert contrast(colours["mark-ink"], colours["mark"]) >= 4.5
    for front, back in SHAPES:
        assert contrast(colours[front], colours[back]) >= 3, (medium, front, back)


def test_landmarks_stand_once_and_can_be_skipped(written: list[Outline]) -> None:
    for outline in written:
        assert outline.names("header", "nav", "main", "footer") == ["header", "nav", "main", "footer"]
        first = next(given for tag, given in outline.tags if tag in ("a", "summary") or "tabindex" in given)
        (main,) = [given for tag, given in outline.tags if tag == "main"]
        assert first["href"] == f"#{main['id']}"
        assert main["tabindex"] == "-1"
        named = [given for tag, given in outline.tags if tag in ("nav", "section")]
        assert all(given.get("aria-labelledby") for given in named)


def test_what_scrolls_can_be_reached_and_has_a_name(written: list[Outline]) -> None:
    for outline in written:
        scrolling = [given for _, given in outline.tags if given.get("class") == "scroll"]
        assert len(scrolling) == len(outline.names("table")) > 0
        assert all(given["tabindex"] == "0" and given["aria-label"] and given["role"] for given in scrolling)
        regions = [given["aria-label"] for given in scrolling if given["role"] == "region"]
        assert len(set(regions)) == len(regions), "two landmarks of one name"
        assert not [given for _, given in outline.tags if int(given.get("tabindex", 0)) > 0]
        assert all(given.get("alt") for tag, given in outline.tags if tag == "img")


def test_zooming_is_not_forbidden_and_motion_is_not_used(written: list[Outline]) -> None:
    for outline in written:
        (viewport,) = [given["content"] for tag, given in outline.tags if given.get("name") == "viewport"]
        assert not re.search("user-scalable|maximum-scale", viewport)
    assert not re.search("animation|transition", STYLE)
    assert "focus-visible" in STYLE
