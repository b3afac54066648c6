"""A page as HTML: one file without anything to load, from the templates beside this module.

Every character that comes from outside the templates is escaped (jinja2's autoescape), and the page's own policy lets a
browser load and run nothing.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import jinja2

from storage.files import write_bytes
from tasks.reporting.blocks import Page
from tasks.reporting.charts import WIDTH
from tasks.reporting.wording import EMPTY

_KEY = '<meta name="policylong-key" content="'
_HEAD = 2048


def render(page: Page) -> str:
    """The HTML of a page; the same page gives the same bytes."""
    return _environment().get_template("page.html.j2").render(page=page)


def write_page(path: Path, page: Page) -> Path:
    """Writes a page under a temporary name and renames it; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, render(page).encode())
    return path


def key_of(path: Path) -> str | None:
    """The key of a written page, None when there is none."""
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        head = file.read(_HEAD)
    return head.partition(_KEY)[2].partition('"')[0] or None


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(empty=EMPTY, chart_width=WIDTH)
    return environment
