"""A policy's tokenizer as the chunker sees it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from models.policy import load_tokenizer
from models.policy_files import tokenizer_files
from storage.digests import digest_files, digest_listing
from tasks.base_policy import BasePolicyConfig, base_folder
from tasks.chunking import Tokenizing

_WORDS = re.compile(r"\w+|[^\w\s]")


def tokenizer_folder(name: str) -> Path:
    """The folder of a tokenizer named as ``policy.base`` is; raises ``PolicyError`` when there is none."""
    return base_folder(BasePolicyConfig(base=name))


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 over the tokenizer's files: chunks counted with it fit every policy that has the same."""
    return digest_listing(digest_files(folder, tokenizer_files(folder)))


def tokenizing(folder: Path) -> Tokenizing:
    """Counts and starts of the tokens of a policy's tokenizer, special tokens left out."""
    tokenizer = load_tokenizer(folder)
    return Tokenizing(count=lambda text: _count(tokenizer, text), starts=lambda text: _starts(tokenizer, text))


def _count(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _starts(tokenizer: PreTrainedTokenizerBase, text: str) -> Sequence[int]:
    if not tokenizer.is_fast:
        # No offsets to be had: words guide the cuts, and every chunk is counted exactly anyway.
        return [found.start() for found in _WORDS.finditer(text)]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [start for start, _ in encoded["offset_mapping"]]
