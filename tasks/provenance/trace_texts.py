"""Text of a sample's tokens: the document's own where corpus and tokenizer give it, else what the tokens decode to."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.provenance.lookup import Sample
from tasks.provenance.token_origins import Origins, Text, Tokens


@dataclass
class SampleTexts:
    """Texts of one sample's segments, each read once; what is not as it should be is added to ``notes``."""

    sample: Sample
    origins: Origins
    tokens: Tokens | None
    has_corpus: bool
    notes: list[str]
    _kept: dict[int, Text | None] = field(default_factory=dict)

    def segment(self, number: int) -> Text | None:
        """The text of a whole segment with its tokens' characters; None when it is not known here."""
        if number not in self._kept:
            segment = self.sample.segments[number]
            found = self.origins.text(segment, self.sample.input_ids[segment["start"] : segment["end"]])
            self._kept[number] = found
            if found is None and self.has_corpus and self.tokens is not None and segment["kind"] != "tag":
                self.notes.append(f"corpus and tokenizer do not give the tokens of segment {number}; see the audit")
        return self._kept[number]

    def around(
        self, number: int, start: int, end: int, reach: int
    ) -> tuple[str | None, str | None, str | None, tuple[int, int] | None]:
        """For tokens ``[start, end)`` of the sample in a segment: their text, at most ``reach`` characters of the
        segment before and after, and their characters in the document.
        """
        segment, found = self.sample.segments[number], self.segment(number)
        if found is not None:
            first, last = found.characters(start - segment["start"], end - segment["start"])
            before = found.between(max(first - reach, found.start), first)
            return found.between(first, last), before, found.between(last, last + reach), (first, last)
        decoded = self.decoded(max(segment["start"], start - reach), start)
        following = self.decoded(end, min(segment["end"], end + reach))
        return (
            self.decoded(start, end),
            decoded[-reach:] if decoded is not None else None,
            following[:reach] if following is not None else None,
            None,
        )

    def decoded(self, start: int, end: int) -> str | None:
        """What tokens ``[start, end)`` of the sample decode to; None without a tokenizer."""
        return None if self.tokens is None else self.tokens.decode(self.sample.input_ids[start:end])

    def head(self, number: int, length: int) -> str | None:
        """The first characters of a segment."""
        found = self.segment(number)
        if found is not None:
            return found.text[:length]
        segment = self.sample.segments[number]
        text = self.decoded(segment["start"], segment["end"])
        return text[:length] if text is not None else None
