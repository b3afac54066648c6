"""Writes the table of defaults into docs/method.md from the options themselves; the tests compare the two.

python deploy/checks/method_defaults.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models.embedders import EmbedderConfig
from models.training import TrainingConfig
from tasks.corpus.chunking import ChunkingConfig
from tasks.measurements.context_gain import ContextGainConfig
from tasks.recipes import all_recipes
from tasks.rounds.building import BuildConfig
from tasks.rounds.marks import Option, options_of

SECTIONS = (
    (ChunkingConfig, "corpus.chunking"),
    (EmbedderConfig, "corpus.embedder"),
    (BuildConfig, "build"),
    (TrainingConfig, "training"),
    (ContextGainConfig, "evaluation"),
)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "method.md"
BEGIN, END = "<!-- defaults:begin -->", "<!-- defaults:end -->"


def marked_options() -> Iterator[Option]:
    """Every option of chunks, embedder, building, training and evaluation, then those that only one recipe has."""
    for model, path in SECTIONS:
        yield from options_of(model, path)
    for recipe in all_recipes().values():
        for option in options_of(recipe.options, "build.options"):
            yield Option(f"{option.path} ({recipe.name})", option.meaning, option.default, option.mark)


def table() -> str:
    """The table as Markdown, ordered by section."""
    lines = ["| option | default | mark | section | meaning |", "|---|---|---|---|---|"]
    options = sorted(marked_options(), key=lambda option: option.mark.section if option.mark else "")
    for option in options:
        mark, section = (option.mark.kind, option.mark.section) if option.mark else ("", "")
        cells = (f"`{option.path}`", f"`{_value(option.default)}`", mark, section, option.meaning.replace("|", "\\|"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def shown(page: str) -> str:
    """The table as a page has it."""
    return page.split(BEGIN)[1].split(END)[0].strip()


def main() -> None:
    """Puts the table between its marks."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
