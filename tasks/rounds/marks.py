"""Where each default comes from: the mark at the end of an option's description, and every option of a configuration.

    "Candidates verified per position. [paper 2.4]"     →     Mark("paper", "2.4"), and the text before it

The mark belongs to the *default*: an option of ours whose default switches it off, as the paper has it, is the paper's.
Sections are those of docs/method.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel

Kind = Literal["paper", "inferred", "ours"]

MEANING: Mapping[Kind, str] = {
    "paper": "the authors' own words or code",
    "inferred": "our arithmetic, or the same group's practice in a sister paper",
    "ours": "a decision of this project where the papers are silent",
}
SECTIONS: Mapping[str, str] = {
    "1": "Problem",
    "2": "One round",
    "2.0": "Roots",
    "2.1": "Entropy",
    "2.2": "Positions",
    "2.3": "Query",
    "2.4": "Retrieval",
    "2.5": "Verification",
    "2.6": "Hard negatives",
    "2.7": "Assembly",
    "2.8": "Training",
    "2.9": "Next round",
    "3": "Baselines",
    "4": "Training recipe",
    "5": "Evaluation",
    "6": "Past the papers",
}
"""Section of docs/method.md → its title."""

_MARKED = re.compile(rf"(?P<text>[^\[\]]*[^\[\]\s]) \[(?P<kind>{'|'.join(get_args(Kind))}) (?P<section>\d(?:\.\d)?)\]")


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a default comes from: whose it is, and the section of docs/method.md that says so."""

    kind: Kind
    section: str

    def __str__(self) -> str:
        return f"{self.kind} {self.section}"


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a configuration: its path in a preset, what it means, its default and where that comes from.

    ``mark`` is None for a description without one.
    """

    path: str
    meaning: str
    default: Any
    mark: Mark | None


def read_mark(description: str) -> tuple[str, Mark | None]:
    """A description's text and its mark, which stands at its end in brackets and nowhere else.

    Without a mark, with a section that docs/method.md does not have, or with other brackets, the mark is None and the
    text the whole description.
    """
    found = _MARKED.fullmatch(description)
    if found is None or found["section"] not in SECTIONS:
        return description, None
    kind: Kind = next(kind for kind in MEANING if kind == found["kind"])
    return found["text"], Mark(kind, found["section"])


def options_of(model: type[BaseModel], path: str = "", defaults: BaseModel | None = None) -> Iterator[Option]:
    """Every option of a model in order, sections inside it included; ``path`` is where the model stands in a preset.

    With ``defaults``, an instance of the model, its values are the defaults; without, those of the fields.
    """
    for name, field in model.model_fields.items():
        place = f"{path}.{name}" if path else name
        default = field.get_default(call_default_factory=True) if defaults is None else getattr(defaults, name)
        section = section_of(field.annotation)
        if section is not None:
            yield from options_of(section, place, default if isinstance(default, section) else None)
            continue
        text, mark = read_mark(field.description or "")
        yield Option(place, text, default, mark)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The model behind an annotation that is one, or None."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
