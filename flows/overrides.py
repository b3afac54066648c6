"""Configurations from plain values and ``--set key=value`` changes, with errors that name the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from storage.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)
HINT = "policylong config show prints every key with its meaning."


def configured(
    kind: type[Config], values: Mapping[str, Any], changes: Sequence[str] = (), *, where: str, hint: str = HINT
) -> Config:
    """A configuration from values with changes applied; raises ``ConfigError`` naming ``where`` and the key."""
    changed: dict[str, Any] = deepcopy(dict(values))
    for change in changes:
        apply_change(changed, change)
    try:
        return kind.model_validate(changed)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "as a whole"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        problem = "is not an option" if first["type"] == "extra_forbidden" else f"{first['msg']}{_given(first)}"
        raise ConfigError(f"{where}: {key}: {problem}{more}.", hint=hint) from error


def _given(problem: Mapping[str, Any]) -> str:
    """The value that was refused, where it is one and the message does not say it."""
    value = problem.get("input")
    plain = isinstance(value, str | int | float) and problem["type"] not in ("value_error", "missing")
    return f", not {str(value)[:60]}" if plain else ""


def apply_change(values: dict[str, Any], change: str) -> None:
    """Sets ``section.field=value`` (the value is YAML) in nested values; raises ``ConfigError`` when it can't be."""
    key, found, text = change.partition("=")
    if not found or not key:
        raise ConfigError(f"--set {change!r} is not KEY=VALUE.", hint="For example: --set campaign.name=trial.")
    target: Any = values
    *parents, last = key.split(".")
    for parent in parents:
        if target.get(parent) is None:
            target[parent] = {}
        target = target[parent]
        if not isinstance(target, dict):
            raise ConfigError(f"--set {key}: {parent} is not a section.", hint=HINT)
    try:
        target[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: {text!r} is not a value ({str(error).splitlines()[0]}).") from error
