"""What a round's screening cost, beside one training pass over its samples (docs/method.md 6, ours)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from models.policy import load_config, load_tokenizer
from storage.errors import ConfigError
from tasks.measurements.costs import cost_figures, screening_work
from tasks.measurements.model_shape import model_shape
from tasks.resources import bos_ids
from tasks.rounds.round import Round
from tasks.screening.verification import separator_ids

_READ = ("screened", "positions", "candidates", "verdicts", "passes", "negatives")


def round_costs(this: Round, tables: Mapping[str, pl.LazyFrame], tokens: int) -> dict[str, float]:
    """Passes, tokens and FLOPs of a round's screening, as run and as the method is written, and of one training pass.

    Empty for a recipe that screens nothing, and for an architecture whose matrices are not known
    (``tasks.measurements.model_shape``): a cost that would be a guess is left out.
    """
    if "verdicts" not in tables:
        return {}
    folder = Path(this.policy.folder)
    remote_code = this.policy.remote_code
    try:
        shape = model_shape(load_config(folder, remote_code=remote_code).to_dict())
    except ConfigError:
        return {}
    tokenizer = load_tokenizer(folder, remote_code=remote_code)
    chunks = pl.scan_parquet(this.home / this.corpus.chunks.uri).select("tokens").with_row_index("chunk")
    work = screening_work(
        {name: tables[name] for name in _READ if name in tables},
        chunks.with_columns(pl.col("chunk").cast(pl.Int32)),
        bos_tokens=len(bos_ids(tokenizer)),
        separator_tokens=len(separator_ids(tokenizer, this.config.verification.separator)),
    )
    figures = cost_figures(work, shape, training_tokens=tokens, sample_tokens=this.config.assembly.target_tokens)
    return {name: float(f"{value:.6g}") for name, value in figures.items()}
