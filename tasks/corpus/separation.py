"""What is evaluated on shares no long run with anything else of the corpus.

The split already puts whole distributions or titles apart, but two of them may quote the same text. Every paragraph of
a held-out document that takes part in a run of 64 or more folded characters which also stands in another part is taken
out; a document of which too little is left is refused. In code the runs are mostly import blocks and licence lines,
and losing those paragraphs costs an evaluation nothing, so the length is the retrieval rule's for both; it is a
setting all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from tasks.corpus.overlap import RUN_CHARACTERS, RunSet, folded_codes, text_hashes, window_hashes

_BETWEEN = re.compile(r"\n[^\S\n]*\n\s*")


class SeparationConfig(BaseModel):
    """How held-out documents are kept apart from the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(True, description="Remove shared runs from held-out documents.")
    run_characters: int = Field(
        RUN_CHARACTERS, ge=16, description="Length of a shared run, folded characters. docs/method.md 2.4."
    )
    min_characters: int = Field(
        200, ge=1, description="A held-out document with less left is refused. Characters. Ours."
    )


def separated(
    heldout: dict[int, str], others: Callable[[], Iterable[str]], length: int = RUN_CHARACTERS
) -> dict[int, str]:
    """The held-out texts by number without the paragraphs that share a run with any of the other texts.

    ``others`` gives the other texts, and is asked again as long as taking paragraphs out brought new neighbours
    together. Afterwards no run of ``length`` folded characters is shared. Memory is that of the held-out texts,
    about 20 bytes per character.
    """
    texts = dict(heldout)
    fresh = list(texts)
    while fresh:
        runs = RunSet(text_hashes(texts[number], length) for number in fresh)
        for other in others():
            runs.meet(text_hashes(other, length))
        shorter = {number: without_runs(texts[number], runs, length) for number in fresh}
        fresh = [number for number in fresh if shorter[number] != texts[number]]
        texts.update(shorter)
    return texts


def without_runs(text: str, runs: RunSet, length: int) -> str:
    """The text without the paragraphs that hold a part of a met run; the same text when there is none."""
    codes, places = folded_codes(text)
    hits = np.flatnonzero(runs.met(window_hashes(codes, length)))
    if not len(hits):
        return text
    paragraphs = paragraph_spans(text)
    starts = paragraphs[:, 0]
    first = np.searchsorted(starts, places[hits], side="right") - 1
    last = np.searchsorted(starts, places[hits + length - 1], side="right") - 1
    border = np.zeros(len(paragraphs) + 1, dtype=np.int64)
    np.add.at(border, first, 1)
    np.add.at(border, last + 1, -1)
    kept = paragraphs[np.cumsum(border)[:-1] == 0]
    return "\n\n".join(text[start:end] for start, end in kept.tolist())


def paragraph_spans(text: str) -> NDArray[np.int64]:
    """(start, end) of each paragraph ``[n, 2]``; between two lie only white space and at least one empty line."""
    breaks = [(found.start(), found.end()) for found in _BETWEEN.finditer(text)]
    starts = [0, *(end for _, end in breaks)]
    ends = [*(start for start, _ in breaks), len(text)]
    return np.array(list(zip(starts, ends, strict=True)), dtype=np.int64)
