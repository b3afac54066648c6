"""Text of documents for a page or a terminal: every character is seen, and none moves the cursor, changes colours,
reorders or hides another.

HTML's own characters are the template's to escape. Controls, bidi marks, zero-width characters and the like become
their escape (``\\x1b``, ``\\u202e``), so that a reader sees what a model read; line ends and tabs stay.
"""

from __future__ import annotations

import unicodedata

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that are not shown as they stand: controls, formats, surrogates, private use, unassigned, line and
paragraph separators."""


def visible(text: str) -> str:
    """The text with every unseen character as its escape; ``\\r`` and lone surrogates too."""
    return "".join(map(_shown, text))


def visible_line(text: str) -> str:
    """The same on one line: line ends are shown as ``⏎``, tabs as a blank."""
    return visible(text).replace("\n", "⏎").replace("\t", " ")


def _shown(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in _UNSEEN:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
