"""A policy's tokenizer as the chunker sees it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from models.policy import load_config, load_tokenizer, native_context
from models.policy_files import tokenizer_files
from storage.digests import digest_files, digest_listing
from tasks.corpus.chunking import Tokenizing
from tasks.training.base_policy import BasePolicyConfig, base_folder

_WORDS = re.compile(r"\w+|[^\w\s]")


def tokenizer_folder(name: str) -> Path:
    """The folder of a tokenizer named as ``policy.base`` is; raises ``PolicyError`` when there is none."""
    return base_folder(BasePolicyConfig(base=name))


def tokenizer_context(name: str) -> int:
    """Context of the policy that a tokenizer comes with, tokens; raises ``PolicyError`` when there is none."""
    return native_context(load_config(tokenizer_folder(name)))


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 over the tokenizer's files: chunks counted with it fit every policy that has the same."""
    return digest_listing(digest_files(folder, tokenizer_files(folder)))


def tokenizing(folder: Path) -> Tokenizing:
    """Counts and starts of the tokens of a policy's tokenizer, special tokens left out."""
    tokenizer = load_tokenizer(folder)
    return _of_fast(tokenizer) if isinstance(tokenizer, PreTrainedTokenizerFast) else _of_slow(tokenizer)


def batch_encoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[str]], list[list[int]]]:
    """Ids of many texts, each as if it were tokenised alone, special tokens left out."""
    if isinstance(tokenizer, PreTrainedTokenizerFast) and _plain(tokenizer):
        backend = tokenizer.backend_tokenizer
        return lambda texts: [e.ids for e in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
    return lambda texts: [tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in texts]


def _plain(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the tokenizer below the Python classes neither cuts nor pads, as it must for texts to stay whole."""
    backend = tokenizer.backend_tokenizer
    return backend.truncation is None and backend.padding is None


def _of_fast(tokenizer: PreTrainedTokenizerFast) -> Tokenizing:
    # The tokenizer below the Python classes, which spend ten times as long on turning every answer into lists.
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return Tokenizing(
        count=lambda text: len(backend.encode_batch_fast([text], add_special_tokens=False)[0]),
        starts=lambda text: [start for start, _ in backend.encode(text, add_special_tokens=False).offsets],
    )


def _of_slow(tokenizer: PreTrainedTokenizerBase) -> Tokenizing:
    # No offsets to be had: words guide the cuts, and every chunk is counted exactly anyway.
    return Tokenizing(
        count=lambda text: len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]),
        starts=lambda text: [found.start() for found in _WORDS.finditer(text)],
    )
