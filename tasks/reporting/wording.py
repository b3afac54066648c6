"""Numbers as people read them. ``None`` is the empty cell."""

from __future__ import annotations

import math

EMPTY = "–"
"""A cell without a value; the page reads it out as *no value*."""


def count(value: float | None) -> str:
    """A whole number with separators: ``5,483``."""
    return EMPTY if value is None else signed(f"{value:,.0f}")


def share(value: float | None, digits: int = 1) -> str:
    """A share as per cent: ``3.1 %``."""
    return EMPTY if value is None else signed(f"{100 * value:.{digits}f} %")


def decimal(value: float | None, digits: int = 2) -> str:
    """A number with fixed decimals, large ones with separators: ``5.64``."""
    return EMPTY if value is None or not math.isfinite(value) else signed(f"{value:,.{digits}f}")


def significant(value: float | None, digits: int = 3) -> str:
    """A number of any size: ``0.00123``, ``4.34e12`` is written ``4.34 × 10¹²``."""
    if value is None or not math.isfinite(value):
        return EMPTY
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        whole = abs(value) >= 10 ** (digits - 1)
        return signed(f"{value:,.0f}" if whole else f"{value:.{digits}g}")
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return signed(f"{mantissa} × 10{raised}")


def difference(value: float | None, digits: int = 3) -> str:
    """A change with its sign: ``+0.139``."""
    return EMPTY if value is None else signed(f"{value:+.{digits}f}")


def choices(entropy: float | None) -> str:
    """exp(entropy): among how many equally likely tokens a choice is as uncertain."""
    if entropy is None:
        return EMPTY
    found = math.exp(min(entropy, 700.0))
    return count(found) if found >= 10 else decimal(found, 1)


def signed(text: str) -> str:
    """The text with the minus sign that is read out as one."""
    return text.replace("-", "−") if text.startswith("-") else text


def plural(number: float, one: str, many: str = "") -> str:
    """``1 round``, ``3 rounds``."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def listed(words: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
