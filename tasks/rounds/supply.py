"""Whether a corpus can fill a round's budget at all, before anything is screened (docs/method.md 2.7, ours).

Recipes of whole documents say themselves what their samples hold at most (``tasks.whole_documents.supply``). In others
a sample has every chunk at most once and a round at most ``reuse_cap`` times, and each root once. So S samples hold at
most

    roots x root_tokens  +  min(S, reuse_cap) x tokens of all chunks

What a corpus gives below that bound only screening tells; it is reported as a shortfall.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
from pydantic import BaseModel

from models.policy import load_tokenizer
from storage.corpora import Corpus
from storage.errors import ConfigError
from storage.home import Home
from tasks.resources import bos_ids
from tasks.rounds.building import BuildConfig
from tasks.samples.spans import Form
from tasks.screening.verification import separator_ids
from tasks.whole_documents.supply import MostTokens, check_stock, largest_round


def check_supply(home: Home, corpus: Corpus, config: BuildConfig) -> None:
    """Raises ``ConfigError`` when no screening, however lucky, could fill the budget (or one sample) from a corpus."""
    chunks = pl.scan_parquet(home / corpus.chunks.uri).select(pl.col("tokens").cast(pl.Int64).sum()).collect().item()
    wanted = config.samples or 1
    roots = config.roots.roots_per_round * config.roots.root_tokens
    most = roots + min(wanted, config.assembly.reuse_cap) * int(chunks or 0)
    needed = wanted * config.assembly.target_tokens
    if most < needed:
        asked = "one sample" if config.tokens is None else f"a budget of {config.tokens} tokens (build.tokens)"
        raise ConfigError(
            f"{asked} needs {needed} tokens, corpus {corpus.name} gives a round at most {most}:"
            f" {config.roots.roots_per_round} roots of {config.roots.root_tokens} (build.roots), and"
            f" {corpus.chunks.rows} chunks of {chunks} tokens in all, each in at most {config.assembly.reuse_cap}"
            " samples (build.assembly.reuse_cap).",
            hint="Lower build.tokens or build.assembly.target_tokens, or ingest more documents.",
        )


def check_documents(
    home: Home,
    corpus: Corpus,
    config: BuildConfig,
    options: BaseModel,
    most: MostTokens,
    tokenizer_folder: Path,
    *,
    remote_code: bool = False,
) -> None:
    """Raises ``InputError`` when no round could give a recipe of whole documents its budget (or one sample).

    Documents are counted as if a round had the longest; its first step looks at those it has.
    """
    tokenizer = load_tokenizer(tokenizer_folder, remote_code=remote_code)
    separator = separator_ids(tokenizer, config.verification.separator)
    form = Form(config.assembly.target_tokens, bos_ids(tokenizer), separator)
    stock = largest_round(home, corpus.documents, config.rounds)
    found = most(stock, form, config.samples or 1, options)
    check_stock(stock, form, config.samples, found, f"a round of corpus {corpus.name} has at most")
