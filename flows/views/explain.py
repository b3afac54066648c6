"""A preset in full as YAML, each option under a comment that says what it means."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel

_WIDTH = 110


def explained(model: BaseModel) -> str:
    """The YAML of a configuration with every field's description above it; reading it gives the same configuration."""
    return "\n".join(_lines(model, 0)) + "\n"


def _lines(model: BaseModel, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for name, field in type(model).model_fields.items():
        value: Any = getattr(model, name)
        if field.exclude:
            continue
        if depth == 0:
            yield ""
        meaning = field.description or (_first_line(value) if isinstance(value, BaseModel) else "")
        for line in textwrap.wrap(meaning, _WIDTH - len(indent)):
            yield f"{indent}# {line}"
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:"
            yield from _lines(value, depth + 1)
        else:
            shown = model.model_dump(mode="json", include={name})
            yield f"{indent}{name}: {_value(shown.get(name, value))}"  # an option that is off may be in no dump


def _value(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, str) and "\n" in value:
        return json.dumps(value)
    text: str = yaml.safe_dump([value], sort_keys=False, allow_unicode=True, width=1e9, default_flow_style=True)
    return text.strip()[1:-1]


def _first_line(model: BaseModel) -> str:
    return (type(model).__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
