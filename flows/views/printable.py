"""Text of documents for a terminal: nothing in it can move the cursor, change colours or reorder what is read."""

from __future__ import annotations

import unicodedata

_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories that are not printed as they stand: controls, formats (bidi marks), surrogates, private use,
unassigned, line and paragraph separators."""


def printable(text: str, *, lines: bool = True) -> str:
    """The text with every control and format character as its escape (``\\x1b``, ``\\u202e``).

    With ``lines`` line ends and tabs stay; without, they become ``⏎`` and one blank, so the text is one line.
    """
    return "".join(_shown(character, lines) for character in text)


def _shown(character: str, lines: bool) -> str:
    if character in "\n\t":
        return character if lines else "⏎" if character == "\n" else " "
    if unicodedata.category(character) not in _UNSEEN:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
