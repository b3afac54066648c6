"""The rows a base model is pretrained on: plain text, repeated passages, chunks in front of a text they help.

Row number i depends on the corpus, the configuration and i alone, so a resumed run reads on where it stopped, and no
state of a random generator has to be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from models.pretrain_config import MixtureConfig
from models.pretrain_corpus import PretrainCorpus

RowKind = Literal["plain", "repeat", "paired"]
Tokens = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class MixtureRow:
    """One training row.

    ``ids``: uint16 [context]. ``copies``: (start of the first copy, start of the second, length) of every passage that
    comes again as a whole. ``chunks``: (start, end) of every chunk in front of a paired row's text.
    """

    kind: RowKind
    ids: Tokens
    copies: tuple[tuple[int, int, int], ...] = ()
    chunks: tuple[tuple[int, int], ...] = ()


class MixtureRows(Dataset[dict[str, torch.Tensor]]):
    """``length`` rows; item i is {input_ids, labels}: int64 [context] each (the model shifts the labels itself)."""

    def __init__(
        self,
        corpus: PretrainCorpus,
        config: MixtureConfig,
        context: int,
        separator: Sequence[int],
        length: int,
        seed: int,
    ) -> None:
        self._corpus = corpus
        self._config = config
        self._context = context
        self._separator = np.asarray(separator, dtype=np.uint16)
        self._length = length
        self._seed = seed

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.from_numpy(self.row(index).ids.astype(np.int64))
        return {"input_ids": ids, "labels": ids.clone()}

    def row(self, index: int) -> MixtureRow:
        """Row ``index``, always ``context`` tokens long."""
        random = np.random.default_rng([self._seed, index])
        tokens = index * self._context
        draw = random.random()
        repeat = self._config.repeat_share(tokens)
        if draw < repeat:
            return self._repeat(random, self._config.reach(tokens))
        if draw < repeat + self._config.paired:
            return self._paired(random) or self._plain(random)
        return self._plain(random)

    def _plain(self, random: np.random.Generator) -> MixtureRow:
        return MixtureRow("plain", self._cut(random, self._context))

    def _cut(self, random: np.random.Generator, length: int) -> Tokens:
        """``length`` consecutive tokens from anywhere."""
        start = int(random.integers(0, max(1, len(self._corpus.ids) - length)))
        piece = self._corpus.ids[start : start + length]
        return np.resize(piece, length) if len(piece) < length else piece

    def _repeat(self, random: np.random.Generator, reach: float) -> MixtureRow:
        """Passages of log-uniform length, each set again later, up to half of the row; other text in between.

        Every piece has a key and the row is the pieces in order of their keys: a second copy's key is its first copy's
        plus at most ``reach``.
        """
        high = min(self._config.passage_max, self._context // 4)
        low = min(self._config.passage_min, high)
        target = int(self._context * random.uniform(0.2, 0.45))
        between = self._separator if random.random() < 0.5 else self._separator[:0]
        pieces: list[tuple[float, int, Tokens]] = []
        left = self._context
        total = 0
        while total < target:
            size = int(np.exp(random.uniform(np.log(low), np.log(high + 1))))
            if left < 2 * (size + len(between)):
                break
            passage = self._cut(random, size)
            first = random.random()
            pieces += [(first, total, passage), (first + random.uniform(0, reach), total, passage)]
            total += size
            left -= 2 * (size + len(between))
        while left > len(between):
            size = min(left - len(between), int(random.integers(low, 2 * high)))
            pieces.append((random.uniform(0, 1 + reach), -1, self._cut(random, size)))
            left -= size + len(between)
        pieces.sort(key=lambda piece: piece[0])
        parts: list[Tokens] = []
        position = 0
        seen: dict[int, int] = {}
        copies: list[tuple[int, int, int]] = []
        for _, label, passage in pieces:
            if label in seen:
                copies.append((seen[label], position, len(passage)))
            elif label >= 0:
                seen[label] = position
            parts += [passage, between]
            position += len(passage) + len(between)
        row = np.concatenate(parts)
        if len(row) < self._context:
            row = np.concatenate([row, self._cut(random, self._context - len(row))])
        return MixtureRow("repeat", row[: self._context], copies=tuple(copies))

    def _paired(self, random: np.random.Generator) -> MixtureRow | None:
        """``chunk + separator + text``: chunk and text from two documents of one distribution that name the same thing.

        None when no pair without a copied run turns up in a few draws.
        """
        corpus, config = self._corpus, self._config
        if not len(corpus.places):
            return None
        wanted = int(random.integers(2, 4)) if random.random() < config.more_chunks else 1
        sizes = [int(size) for size in random.integers(config.chunk_min, config.chunk_max + 1, size=wanted)]
        room = self._context - sum(sizes) - wanted * len(self._separator)
        if room < config.chunk_max:
            return None
        for _ in range(8):
            anchor = int(corpus.places[random.integers(len(corpus.places))])
            document = corpus.document_of(anchor)
            begin, end = int(corpus.starts[document]), int(corpus.starts[document + 1])
            start = max(begin, min(anchor - int(random.integers(16, max(17, room - 8))), end - room))
            text = corpus.ids[start : start + room]
            if len(text) < room:
                continue
            chunks = self._chunks(random, sizes, document, start, min(end, start + room), text)
            if chunks is not None:
                parts: list[Tokens] = []
                for chunk in chunks:
                    parts += [chunk, self._separator]
                ends = np.cumsum([len(chunk) + len(self._separator) for chunk in chunks]) - len(self._separator)
                spans = tuple((int(e) - len(chunk), int(e)) for e, chunk in zip(ends, chunks, strict=True))
                return MixtureRow("paired", np.concatenate([*parts, text]), chunks=spans)
        return None

    def _chunks(
        self, random: np.random.Generator, sizes: list[int], document: int, start: int, end: int, text: Tokens
    ) -> list[Tokens] | None:
        """A chunk of each size that shares a rare name with ``[start, end)``, or comes from anywhere if so drawn."""
        corpus = self._corpus
        runs = _runs(text, self._config.shared_run)
        names = self._names_between(start, end)
        chunks: list[Tokens] = []
        for size in sizes:
            if random.random() < self._config.unrelated:
                chunk = self._cut(random, size)
            else:
                if not len(names):
                    return None
                name = int(names[random.integers(len(names))])
                places = corpus.places[corpus.name_starts[name] : corpus.name_starts[name + 1]]
                place = int(places[random.integers(len(places))])
                other = corpus.document_of(place)
                if other == document:
                    return None
                first = place - int(random.integers(0, size))
                first = max(int(corpus.starts[other]), min(first, int(corpus.starts[other + 1]) - 1 - size))
                chunk = corpus.ids[first : first + size]
            if len(chunk) < size or not runs.isdisjoint(_runs(chunk, self._config.shared_run)):
                return None
            chunks.append(chunk)
        return chunks

    def _names_between(self, start: int, end: int) -> npt.NDArray[np.int64]:
        """Numbers of the rare names that begin in ``[start, end)``."""
        order, ordered = self._by_position()
        low, high = np.searchsorted(ordered, [start, end])
        return np.searchsorted(self._corpus.name_starts, order[low:high], side="right") - 1

    def _by_position(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The places sorted by position, made once: (index into ``places``, position)."""
        if not hasattr(self, "_sorted"):
            order = np.argsort(self._corpus.places, kind="stable")
            self._sorted = order, self._corpus.places[order]
        return self._sorted


def _runs(ids: Tokens, length: int) -> set[bytes]:
    """Every run of ``length`` tokens, as bytes."""
    raw = ids.tobytes()
    return {raw[2 * i : 2 * (i + length)] for i in range(len(ids) - length + 1)}
