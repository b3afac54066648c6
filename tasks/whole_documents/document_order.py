"""The documents of a round for recipes that screen nothing: which they are, in what order, and their tokens.

Documents of part ``screen`` stand in the order of a hash of their id; round k of R takes every R-th starting with the
k-th, so rounds are disjoint and every round is a random draw (docs/method.md 3, ours). Texts are read a wave at a time,
in the order they have in the file, so memory holds a wave's texts and not the round's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.policy import load_tokenizer
from storage.corpora import Corpus, corpus_to_read
from storage.errors import InputError
from storage.home import Home
from storage.refs import Ref
from storage.tables import RowReader
from tasks.corpus.splitting import unit_hash
from tasks.resources import PolicyInputs, bos_ids
from tasks.samples.spans import Form
from tasks.screening.verification import separator_ids
from tasks.whole_documents.supply import MostTokens, check_stock, largest_round

WAVE_BYTES = 64 << 20
"""Texts read at once, bytes (a single longer document is a wave of its own)."""

Encode = Callable[[str], Sequence[int]]
"""A text's tokens when it stands alone, without special tokens."""


class DocumentInputs(BaseModel):
    """What every recipe of whole documents depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: str = Field(description="Digest of the corpus.")
    tokenizer: str = Field(description="Digest of the tokenizer's files.")
    separator: str = Field(description="Text between two spans.")
    target_tokens: int = Field(ge=2, description="Tokens of every sample.")
    samples: int | None = Field(None, ge=1, description="Samples wanted; None: as many as the documents give.")
    round: int = Field(ge=1, description="Round, from 1.")
    rounds: int = Field(ge=1, description="Rounds that share the documents.")
    policy: PolicyInputs = Field(exclude=True, description="Only its tokenizer is used.")


@dataclass(frozen=True, slots=True)
class Listed:
    """A document of the round: its row in the corpus, its id, its size in bytes of UTF-8."""

    row: int
    doc_id: str
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class TokenDocument:
    """A document's tokens ``[n]``, n >= 1, when its text is tokenised alone."""

    row: int
    doc_id: str
    ids: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)


def round_documents(home: Home, documents: Ref, *, seed: int, number: int, rounds: int) -> list[Listed]:
    """The documents of round ``number`` (from 1) of ``rounds``, in order."""
    frame = (
        pl.scan_parquet(home / documents.uri, row_index_name="row")
        .filter(pl.col("part") == "screen")
        .select("row", "doc_id", pl.col("text").str.len_bytes().alias("size"))
        .collect(engine="streaming")
    )
    order = sorted(frame.iter_rows(), key=lambda found: (unit_hash("document-order", seed, found[1]), found[1]))
    return [Listed(row, doc_id, size) for row, doc_id, size in order[number - 1 :: rounds]]


@dataclass(frozen=True, slots=True)
class RoundDocuments:
    """A round's documents, opened: the form of its samples, the texts and the tokens."""

    home: Home
    corpus: Corpus
    inputs: DocumentInputs
    listed: Sequence[Listed]
    encode: Encode
    form: Form
    _readers: list[RowReader] = field(default_factory=list)

    @classmethod
    def open(cls, home: Home, inputs: DocumentInputs, seed: int) -> RoundDocuments:
        """Lists the documents and loads the tokenizer; raises ``InputError`` when the round has no document."""
        corpus = corpus_to_read(home, inputs.corpus)
        listed = round_documents(home, corpus.documents, seed=seed, number=inputs.round, rounds=inputs.rounds)
        if not listed:
            raise InputError(
                f"round {inputs.round} of {inputs.rounds} has no document of part 'screen'.",
                hint="Ingest more documents, or lower build.rounds.",
            )
        tokenizer = load_tokenizer(Path(inputs.policy.folder), remote_code=inputs.policy.remote_code)

        def encode(text: str) -> list[int]:
            return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

        form = Form(inputs.target_tokens, bos_ids(tokenizer), separator_ids(tokenizer, inputs.separator))
        return cls(home, corpus, inputs, listed, encode, form)

    def check_supply(self, most: MostTokens, options: BaseModel) -> None:
        """Raises ``InputError`` when the documents can't give a recipe the samples wanted (or one)."""
        inputs, sizes = self.inputs, [document.size for document in self.listed]
        stock = largest_round(self.home, self.corpus.documents, inputs.rounds)
        stock = replace(stock, documents=len(sizes), size=sum(sizes))
        found = most(stock, self.form, inputs.samples or 1, options)
        check_stock(stock, self.form, inputs.samples, found, f"round {inputs.round} of {inputs.rounds} has")

    def texts(self) -> Iterator[tuple[Listed, str]]:
        """Every document with its text, in order."""
        reader = RowReader(self.home.path, self.corpus.documents, ["text"], kept_bytes=0)
        try:
            for wave in _waves(self.listed):
                texts = {document.row: reader[document.row]["text"] for document in sorted(wave, key=lambda d: d.row)}
                for document in wave:
                    yield document, texts.pop(document.row)
        finally:
            reader.close()

    def tokens(self) -> Iterator[TokenDocument]:
        """Every document with its tokens, in order; one without a token is left out."""
        for document, text in self.texts():
            ids = np.asarray(self.encode(text), dtype=np.int32)
            if len(ids):
                yield TokenDocument(document.row, document.doc_id, ids)

    def lookup(self) -> Callable[[int], TokenDocument]:
        """Any document of the corpus by its row, the last ones kept; ``close`` ends it."""
        reader = RowReader(self.home.path, self.corpus.documents, ["doc_id", "text"])
        self._readers.append(reader)

        def look_up(row: int) -> TokenDocument:
            found = reader[row]
            return TokenDocument(row, found["doc_id"], np.asarray(self.encode(found["text"]), dtype=np.int32))

        return lru_cache(maxsize=64)(look_up)

    def close(self) -> None:
        """Closes what ``lookup`` opened."""
        for reader in self._readers:
            reader.close()


def _waves(listed: Sequence[Listed]) -> Iterator[list[Listed]]:
    """Consecutive documents of at most ``WAVE_BYTES`` together."""
    wave: list[Listed] = []
    size = 0
    for document in listed:
        if wave and size + document.size > WAVE_BYTES:
            yield wave
            wave, size = [], 0
        wave.append(document)
        size += document.size
    if wave:
        yield wave
