"""Whether a corpus can fill a round's budget at all, before anything is screened (docs/method.md 2.7, ours).

A sample has every chunk at most once and a round at most ``reuse_cap`` times, and each root once. So S samples hold at
most

    roots x root_tokens  +  min(S, reuse_cap) x tokens of all chunks

What a corpus gives below that bound only screening tells; it is reported as a shortfall.
"""

from __future__ import annotations

import polars as pl

from storage.corpora import Corpus
from storage.errors import ConfigError
from storage.home import Home
from tasks.rounds.building import BuildConfig


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
