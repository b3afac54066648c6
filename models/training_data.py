"""The samples of a dataset version as a dataset of `datasets`, checked against the model before the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from storage.errors import ConfigError, InputError, IntegrityError


@dataclass(frozen=True, slots=True)
class Samples:
    """Token ids of whole samples (``rows[i]["input_ids"]``: int64 [length]) and what is known about all of them."""

    rows: datasets.Dataset
    shortest: int
    """Tokens."""
    longest: int
    """Tokens."""
    tokens: int

    def __len__(self) -> int:
        return len(self.rows)


def load_samples(files: Sequence[Path], cache: Path, *, vocabulary: int) -> Samples:
    """Reads Parquet files with a column ``input_ids`` (list of int32), in order, memory-mapped from ``cache``.

    Raises ``InputError`` when there is no sample and ``IntegrityError`` for token ids outside ``vocabulary``.
    """
    if not sum(_rows(path) for path in files):
        raise InputError("there are no samples to train on.", hint="policylong status shows the funnel of the round.")
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(
            "parquet",
            data_files=[str(path) for path in files],
            split="train",
            cache_dir=str(cache),
            columns=["input_ids"],
        )
    except datasets.exceptions.DatasetGenerationError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from error
        raise IntegrityError(f"the samples can't be read: {error.__cause__ or error}.") from error
    finally:
        if bars:
            datasets.enable_progress_bars()
    shortest, longest, tokens = 1 << 62, 0, 0
    for chunk in rows.data.column("input_ids").chunks:
        lengths, ids = pc.list_value_length(chunk), pc.list_flatten(chunk)
        shortest, longest = min(shortest, pc.min(lengths).as_py()), max(longest, pc.max(lengths).as_py())
        tokens += len(ids)
        low, high = pc.min(ids).as_py(), pc.max(ids).as_py()
        if len(ids) and (low < 0 or high >= vocabulary):
            raise IntegrityError(
                f"the samples have token ids from {low} to {high}, the policy's vocabulary has {vocabulary}.",
                hint="Train the policy that the version was built with.",
            )
    return Samples(rows.with_format("torch"), shortest, longest, tokens)


def _rows(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowInvalid) as error:
        raise IntegrityError(f"{path} can't be read ({error}).", hint="policylong audit says more.") from error


def check_lengths(samples: Samples, *, context: int, batch: int) -> None:
    """Raises ``ConfigError`` for samples longer than the context, of one token, or of unequal length in a batch."""
    if samples.longest > context:
        raise ConfigError(
            f"the samples have up to {samples.longest} tokens, the policy will reach {context}.",
            hint=f"Set training.extension.context to at least {samples.longest}.",
        )
    if samples.shortest < 2:
        raise ConfigError("a sample of fewer than 2 tokens can't be trained on.")
    if batch > 1 and samples.shortest != samples.longest:
        raise ConfigError(
            f"samples of {samples.shortest} to {samples.longest} tokens can't share a batch of {batch}.",
            hint="Set training.batch to 1 and use training.accumulation.",
        )


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Rows of equal length as a batch: ``input_ids`` and ``labels``, int64 [rows, length]."""
    ids = torch.stack([torch.as_tensor(row["input_ids"], dtype=torch.long) for row in rows])
    return {"input_ids": ids, "labels": ids}
