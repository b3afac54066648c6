"""The heavy things of a process, opened on first need and shared by its steps: policy, scorer, embedder, index, corpus
readers.

Nothing is opened by a run whose steps are all finished. ``release()`` closes what is open; a policy is let go when
another one is asked for, so two are never in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from transformers import PreTrainedTokenizerBase

from models.embedders import Embedder, EmbedderConfig, load_embedder
from models.kernel_head import Kernel
from models.policy import load_policy
from models.scoring import Scorer
from storage.corpora import Corpus
from storage.errors import PolicyError
from storage.hits import WordIndex
from storage.home import Home
from storage.manifests import without_plain_ways
from storage.policies import check_collected
from storage.vectors import IndexConfig, VectorIndex, ensure_index
from storage.word_index import ensure_words
from storage.words import Bm25
from tasks.progress import progress


class PolicyInputs(BaseModel):
    """A policy as a step's input: its digest, and how its numbers are computed, since both change the last bits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = Field("cpu", description="Kind of device: cpu or cuda.")
    threads: int = Field(2, ge=1, description="Batches that a CPU scores at once.")
    tokens_per_batch: int = Field(8192, ge=1)
    packing: bool = Field(False, description="Contexts end to end in one row (models.packed).")
    kernel: Kernel = Field("torch", description="What computes entropies (models.kernel_head).")
    folder: str = Field(exclude=True)
    remote_code: bool = Field(False, exclude=True)

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_plain_ways(dump(self))


@dataclass(frozen=True, slots=True)
class ReadyPolicy:
    """A loaded policy with the tokens that stand before every context (its BOS, or none)."""

    tokenizer: PreTrainedTokenizerBase
    bos: tuple[int, ...]
    context: int
    scorer: Scorer


_policy: tuple[PolicyInputs, ReadyPolicy] | None = None
_embedder: tuple[EmbedderConfig, Embedder] | None = None
_index: tuple[str, VectorIndex] | None = None
_words: tuple[str, WordIndex] | None = None


def bos_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The BOS as the tokenizer itself puts it in front of a text, or nothing."""
    encoded: Sequence[int] = tokenizer("a")["input_ids"]
    bos = tokenizer.bos_token_id
    return (int(bos),) if isinstance(bos, int) and encoded and encoded[0] == bos else ()


def policy_for(inputs: PolicyInputs) -> ReadyPolicy:
    """The policy, loaded once per process; raises ``PolicyError`` when the folder no longer has the expected digest, or
    gc removed its weights.
    """
    global _policy
    if _policy is not None and _policy[0] == inputs:
        return _policy[1]
    _policy = None
    check_collected(Path(inputs.folder))
    torch.set_num_threads(inputs.threads)
    loaded = load_policy(Path(inputs.folder), device=inputs.device, dtype=inputs.dtype, remote_code=inputs.remote_code)
    if loaded.digest != inputs.digest:
        raise PolicyError(
            f"the policy in {inputs.folder} has digest {loaded.digest[:12]}, expected {inputs.digest[:12]}.",
            hint="Its files were changed since the campaign took it; restore them, or start a new campaign.",
        )
    ready = ReadyPolicy(
        tokenizer=loaded.tokenizer,
        bos=bos_ids(loaded.tokenizer),
        context=loaded.context,
        scorer=Scorer(
            loaded.model, tokens_per_batch=inputs.tokens_per_batch, packing=inputs.packing, kernel=inputs.kernel
        ),
    )
    _policy = (inputs, ready)
    return ready


def scorer_for(inputs: PolicyInputs) -> Scorer:
    """The scorer of a policy."""
    return policy_for(inputs).scorer


def embedder_for(config: EmbedderConfig) -> Embedder:
    """The embedder, loaded once per process."""
    global _embedder
    if _embedder is None or _embedder[0] != config:
        _embedder = (config, load_embedder(config))
    return _embedder[1]


def index_for(home: Home, corpus: Corpus, config: IndexConfig) -> VectorIndex:
    """The index of a corpus, opened once per process (the embedded engine has one opener per folder)."""
    global _index
    name = f"{home.path}:{corpus.digest}:{config.model_dump_json()}"
    if _index is None or _index[0] != name:
        if _index is not None:
            _index[1].close()
            _index = None
        _index = (name, ensure_index(home, corpus, config))
    return _index[1]


def words_for(home: Home, corpus: Corpus, config: IndexConfig, bm25: Bm25) -> WordIndex:
    """The words of a corpus, opened once per process."""
    global _words
    name = f"{home.path}:{corpus.digest}:{config.model_dump_json()}:{bm25}"
    if _words is None or _words[0] != name:
        if _words is not None:
            _words[1].close()
            _words = None

        def watch(batches: Iterable[list[str]], work: str) -> Iterator[list[str]]:
            with progress(work, total=corpus.chunks.rows, unit="chunks") as advance:
                for texts in batches:
                    yield texts
                    advance(len(texts))

        _words = (name, ensure_words(home, corpus, config, bm25, watch=watch))
    return _words[1]


def release() -> None:
    """Closes and forgets everything that is open."""
    global _policy, _embedder, _index, _words
    for opened in (_index, _words):
        if opened is not None:
            opened[1].close()
    _policy = _embedder = _index = _words = None
