"""Text of tokens, read literally: bytes of the vocabulary one after the other, and the file that was ingested.

A token's characters are those whose bytes are the token's. Only byte-level vocabularies can be read so, and only of
chunks and documents of which a later part was taken the tokenizer is asked how many bytes stand before it.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow.parquet as pq

from storage.errors import InputError, IntegrityError


def byte_alphabet() -> dict[str, int]:
    """Character of a byte-level vocabulary → byte: printable ones stand for themselves, the others follow from 256."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


class Vocabulary:
    """Bytes of every token of a policy's ``tokenizer.json``; raises ``InputError`` for one that is not byte-level."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "tokenizer.json"
        content = json.loads(self._file.read_text(encoding="utf-8"))
        if (content.get("decoder") or {}).get("type") != "ByteLevel":
            raise InputError(f"{self._file} is not byte-level: its tokens' bytes can't be read from it.")
        alphabet = byte_alphabet()
        added = {token["id"]: token["content"].encode() for token in content["added_tokens"]}
        vocabulary = {number: word for word, number in content["model"]["vocab"].items() if number not in added}
        self._bytes = {number: bytes(alphabet[c] for c in word) for number, word in vocabulary.items()} | added

    def bytes_of(self, ids: Sequence[int]) -> bytes:
        """The bytes of tokens, one after the other."""
        return b"".join(self._bytes[number] for number in ids)

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as text; half a character is shown as U+FFFD."""
        return self.bytes_of(ids).decode(errors="replace")

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, by the ``tokenizers`` library."""
        from tokenizers import Tokenizer

        return list(Tokenizer.from_file(str(self._file)).encode(text, add_special_tokens=False).ids)


@dataclass(frozen=True)
class SegmentText:
    """A segment's tokens laid over its document: ``skipped`` bytes of the origin, which begins at character ``start``
    of the document, stand before its first token.
    """

    document: str
    start: int
    skipped: int
    tokens: tuple[bytes, ...]

    def __post_init__(self) -> None:
        own = b"".join(self.tokens)
        if self._origin[self.skipped : self.skipped + len(own)] != own:
            raise IntegrityError(f"tokens that decode to {own[:60]!r} are not at character {self.start}.")

    @cached_property
    def _origin(self) -> bytes:
        return self.document[self.start :].encode()

    @cached_property
    def _character_of(self) -> list[int]:
        """For every byte of the origin as far as it is needed: the character of the document it belongs to."""
        needed, found = self.skipped + sum(map(len, self.tokens)), list[int]()
        for place, character in enumerate(self.document[self.start :]):
            if len(found) >= needed:
                break
            found += [self.start + place] * len(character.encode())
        return found

    def characters(self, first: int, stop: int) -> tuple[int, int]:
        """Characters ``[start, end)`` of the document of the segment's tokens ``[first, stop)``."""
        begin = self.skipped + sum(map(len, self.tokens[:first]))
        end = self.skipped + sum(map(len, self.tokens[:stop]))
        return self._character_of[begin], self._character_of[end - 1] + 1

    def around(self, first: int, stop: int, reach: int) -> tuple[str, str, str]:
        """Text of tokens ``[first, stop)``, and at most ``reach`` characters of the segment before and after."""
        begin, end = self.characters(first, stop)
        lowest, highest = self.characters(0, len(self.tokens))
        before = self.document[max(lowest, begin - reach) : begin]
        return self.document[begin:end], before, self.document[end : min(highest, end + reach)]


def bare(text: str) -> str:
    """What no clean-up of a text may touch: its composed characters without white space and control characters."""
    return "".join(
        c for c in unicodedata.normalize("NFC", text) if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf")
    )


class Original:
    """The texts of an ingested Parquet or JSONL file, by row, each read once and kept as ``bare`` leaves it."""

    def __init__(self, path: Path, column: str) -> None:
        self._path, self._column = path, column
        self._bare: dict[int, str] = {}

    def holds(self, source: str | None) -> bool:
        """Whether a document's source is a row of this file."""
        return source is not None and source.rpartition("#")[0] == self._path.name

    def agrees(self, source: str, document: str, start: int, end: int) -> bool:
        """Whether the row has the characters ``[start, end)`` of the document at the same place, counted without white
        space, with the 200 characters before and after them.
        """
        row = int(source.rpartition("#")[2])
        if row not in self._bare:
            self._bare[row] = bare(self._read(row))
        low, high = max(start - 200, 0), end + 200
        place, wanted = len(bare(document[:low])), bare(document[low:high])
        return self._bare[row][place : place + len(wanted)] == wanted

    def _read(self, wanted: int) -> str:
        if self._path.suffix != ".jsonl":
            with pq.ParquetFile(self._path) as file:
                if self._column not in file.schema_arrow.names:
                    raise InputError(f"{self._path} has no column {self._column!r}.", hint="Give --text-column.")
                first = 0
                for batch in file.iter_batches(64, columns=[self._column]):
                    if wanted < first + len(batch):
                        return str(batch[0][wanted - first])
                    first += len(batch)
        else:
            with self._path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines):
                    if number == wanted:
                        return str(json.loads(line)[self._column])
        raise InputError(f"{self._path} has fewer rows than documents of it: no row {wanted}.")
