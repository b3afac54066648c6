"""Whether documents can fill a round's samples at all, before any is tokenised or looked up (docs/method.md 3, ours).

A token stands for at least one byte of text, so bytes bound tokens. Each recipe says what its samples hold besides a
document's tokens, and how often they hold a document. What falls short in a way that only tokens tell is a shortfall of
the round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from storage.errors import InputError
from storage.home import Home
from storage.refs import Ref
from tasks.samples.spans import Form


@dataclass(frozen=True, slots=True)
class Stock:
    """Documents and their bytes of UTF-8: those of a round, and all of part ``screen``."""

    documents: int
    size: int
    all_documents: int
    all_size: int
    longest: int

    def tokens(self, form: Form) -> int:
        """Most tokens of the round's documents, with the separators behind them."""
        return most_of(self.documents, self.size, form)

    def all_tokens(self, form: Form) -> int:
        """The same of all documents."""
        return most_of(self.all_documents, self.all_size, form)


@dataclass(frozen=True, slots=True)
class Most:
    """Tokens that samples can have at most; ``told`` is what else decides it, as a message goes on."""

    tokens: int
    told: str = ""


MostTokens = Callable[[Stock, Form, int, Any], Most]
"""(documents, form, samples wanted, the recipe's options) → the most tokens that so many samples can have together."""


def most_of(texts: int, size: int, form: Form) -> int:
    """Most tokens of texts of ``size`` bytes together, with the separators behind them.

    One more a text, since a tokenizer may put a space in front of it.
    """
    return size + texts * form.cost(1)


def largest_round(home: Home, documents: Ref, rounds: int) -> Stock:
    """The documents of a round of so many, if they were the longest there are: no round has more."""
    sizes = pl.scan_parquet(home / documents.uri).filter(pl.col("part") == "screen")
    size = pl.col("text").str.len_bytes().cast(pl.Int64)
    facts = sizes.select(pl.len().alias("documents"), size.sum().alias("size"), size.max().alias("longest"))
    count, total, longest = facts.collect(engine="streaming").row(0)
    most = -(-count // rounds)
    if most < count:
        own = sizes.select(size.alias("size")).top_k(most, by="size").select(pl.col("size").sum())
        return Stock(most, own.collect(engine="streaming").item() or 0, count, total, longest)
    return Stock(count, total, count, total, longest or 0)


def check_stock(stock: Stock, form: Form, samples: int | None, most: Most, whose: str) -> None:
    """Raises ``InputError`` when documents can't give the samples wanted (None: one), however they are tokenised.

    ``whose`` begins the message: whose documents these are.
    """
    wanted = samples or 1
    if most.tokens < wanted * form.room:
        options = "build.assembly.target_tokens" if samples is None else "build.tokens, build.assembly.target_tokens"
        raise InputError(
            f"{whose} {stock.documents} documents of {stock.size:,} bytes, which give samples at most"
            f" {most.tokens:,} tokens{most.told}: too few for {wanted} sample{'s' if wanted > 1 else ''} of"
            f" {form.target} tokens ({options}).",
            hint="Lower build.tokens or build.assembly.target_tokens, or ingest more documents.",
        )
