"""One text, one form: what two sources write differently but mean the same becomes the same characters.

NFC; unix line ends; no control characters but tab and line end; no byte order marks; no blanks at the end of a line;
at most two empty lines in a row; no empty lines at the ends. Indentation stays: it means something in code and verse.
"""

from __future__ import annotations

import re
import unicodedata

from pydantic import BaseModel, ConfigDict, Field

from tasks.corpus.quarantine import Refusal

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff]")
_LINE_ENDS = re.compile(r"\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_EMPTY_LINES = re.compile(r"\n{4,}")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class NormalisationConfig(BaseModel):
    """What is done to a text before it gets an identity, and how long a document may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unicode: bool = Field(True, description="Compose characters (NFC). Ours.")
    min_characters: int = Field(50, ge=1, description="A shorter document is refused. Characters. Ours.")
    max_characters: int = Field(5_000_000, ge=1_000, description="A longer document is refused. Characters. Ours.")


def normalised(text: str, config: NormalisationConfig) -> str | Refusal:
    """The text in its one form, or why it can't be a document. A text in that form comes back unchanged."""
    if found := _SURROGATE.search(text):
        return Refusal("lone-surrogate", f"U+{ord(found[0]):04X} at character {found.start()}", text)
    text = _CONTROL.sub("", _LINE_ENDS.sub("\n", text))
    if config.unicode:
        # After the control characters went: one may have stood between a letter and its accent.
        text = unicodedata.normalize("NFC", text)
    text = _EMPTY_LINES.sub("\n\n\n", "\n".join([line.rstrip() for line in text.split("\n")])).strip("\n")
    if not text.strip():
        return Refusal("empty")
    if len(text) < config.min_characters:
        return Refusal("too-short", f"{len(text)} characters, expected at least {config.min_characters}", text)
    if len(text) > config.max_characters:
        return Refusal("too-long", f"{len(text)} characters, expected at most {config.max_characters}", text)
    return text
