"""The configuration of a round's data construction, as a whole and checked as a whole before any work is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from models.kernel_head import Kernel, kernel_by_itself
from models.packed import packs_by_itself
from models.policy import DTYPES, load_config, load_tokenizer, native_context, pick_device
from storage.corpora import Corpus
from storage.errors import ConfigError, PolicyError
from tasks.resources import PolicyInputs, bos_ids
from tasks.samples.assembly import AssemblyConfig
from tasks.screening.entropy import EntropyConfig
from tasks.screening.fillers import FillersConfig
from tasks.screening.negative_verification import NegativeVerificationConfig
from tasks.screening.negatives import NegativesConfig
from tasks.screening.retrieval import RetrievalConfig
from tasks.screening.roots import RootsConfig
from tasks.screening.verification import VerificationConfig, separator_ids


class NumericConfig(BaseModel):
    """How the policy's numbers are computed: part of a version's identity, since it changes the last bits of an
    entropy. Packing and kernel left at auto are in no dump; what they came to is in the manifest's environment.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Type the policy screens in. [ours 2.1]"
    )
    device: str = Field("auto", description="cpu, cuda, or auto: the first GPU where there is one. [ours 2.1]")
    threads: int = Field(
        2,
        ge=1,
        description="On a CPU as many batches are scored at once, a torch thread each, so that their number"
        " changes no entropy. [ours 2.1]",
    )
    tokens_per_batch: int = Field(
        8192,
        ge=1,
        description="Tokens of a batch of contexts, padding included; a CPU has as many batches in memory as threads."
        " [ours 2.5]",
    )
    packing: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Contexts end to end in one row instead of padded rows; auto: on a GPU with flash attention, 16-bit"
        " weights and a model type that is known to allow it. [ours 2.5]",
    )
    kernel: Literal["auto", "triton", "torch"] = Field(
        "auto",
        description="Entropies from logits (torch) or by a kernel that writes none to memory (triton); auto: triton on"
        " a GPU in 16 bits where it runs and agrees. [ours 2.1]",
    )

    @model_serializer(mode="wrap")
    def _without_auto(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = dump(self)
        return {name: v for name, v in document.items() if name not in ("packing", "kernel") or v != "auto"}


class BuildConfig(BaseModel):
    """Everything that decides what a round's samples are, given corpus and policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = Field("policylong", description="Which method (policylong recipes lists them). [paper 2]")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options that only this recipe has (policylong recipes NAME). [ours 3]"
    )
    rounds: int = Field(4, ge=1, description="Rounds that share the roots. [paper 2.9]")
    tokens: int | None = Field(
        None,
        ge=1,
        description="Budget of a round, tokens: as many whole samples as it holds; null: as many as the roots give. The"
        " paper's is 1B. [ours 2.9]",
    )
    lag: int = Field(
        0,
        ge=0,
        description="Rounds between the policy that screens and the one that is trained: 1 builds the next round while"
        " this one trains. [paper 2.9]",
    )
    roots_per_shard: int = Field(
        8, ge=1, description="Roots of one checkpointed task: at most some ten minutes of work. [ours 2.0]"
    )
    screening_tokens: int = Field(
        2048, ge=32, description="Context of chunk and root, tokens, the same in all rounds. [paper 2.5]"
    )
    roots: RootsConfig = RootsConfig()
    entropy: EntropyConfig = EntropyConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    verification: VerificationConfig = VerificationConfig()
    negatives: NegativesConfig = NegativesConfig()
    negative_verification: NegativeVerificationConfig = NegativeVerificationConfig()
    fillers: FillersConfig = FillersConfig()
    assembly: AssemblyConfig = AssemblyConfig()
    numeric: NumericConfig = NumericConfig()

    @property
    def samples(self) -> int | None:
        """Whole samples that the budget holds; None without a budget."""
        return None if self.tokens is None else self.tokens // self.assembly.target_tokens

    @property
    def seeds(self) -> dict[str, int]:
        """Every seed of a random choice."""
        return {
            "roots": self.roots.seed,
            "placebo": self.verification.seed,
            "fillers": self.fillers.seed,
            "assembly": self.assembly.seed,
        }


def check_budget(config: BuildConfig) -> None:
    """Raises ``ConfigError`` for a budget that does not hold one sample."""
    if config.samples == 0:
        raise ConfigError(
            f"a budget of {config.tokens} tokens (build.tokens) does not hold one sample of"
            f" {config.assembly.target_tokens} (build.assembly.target_tokens).",
            hint="Raise build.tokens, or lower build.assembly.target_tokens.",
        )


def check_sizes(
    config: BuildConfig,
    *,
    chunk_tokens: int | None,
    separator_tokens: int = 0,
    bos_tokens: int = 0,
    policy_context: int | None = None,
) -> None:
    """Checks that everything fits before any work is done; raises ``ConfigError`` naming value, limit and option.

    What is not known yet (None: no corpus, no policy) is left out, and checked when it is.
    """
    check_budget(config)
    root, more, screening = config.roots.root_tokens, separator_tokens + bos_tokens, config.screening_tokens
    if root + more >= screening:
        raise ConfigError(
            f"a root of {root} tokens (build.roots.root_tokens) leaves no room for a chunk: the screening context is"
            f" {screening} (build.screening_tokens).",
            hint="Lower build.roots.root_tokens, or raise build.screening_tokens.",
        )
    share = screening - root - more
    if chunk_tokens is not None and chunk_tokens > share:
        raise ConfigError(
            f"a chunk of {chunk_tokens} tokens (corpus.chunking.max_tokens) is larger than its share, {share}: the"
            f" screening context is {screening} (build.screening_tokens), a root takes {root}"
            f" (build.roots.root_tokens), separator and BOS {more}.",
            hint="Ingest with smaller chunks, lower build.roots.root_tokens, or raise build.screening_tokens.",
        )
    if policy_context is not None and screening > policy_context:
        raise ConfigError(
            f"the screening context of {screening} tokens (build.screening_tokens) is longer than the policy's own,"
            f" {policy_context}.",
            hint="Lower build.screening_tokens.",
        )
    smallest = bos_tokens + root + separator_tokens + (chunk_tokens or 1)
    if config.assembly.target_tokens < smallest:
        raise ConfigError(
            f"a sample of {config.assembly.target_tokens} tokens (build.assembly.target_tokens) does not hold one root"
            f" and one chunk ({smallest}).",
            hint="Raise build.assembly.target_tokens.",
        )
    if config.samples is not None and config.samples > config.roots.roots_per_round:
        raise ConfigError(
            f"a budget of {config.tokens} tokens (build.tokens) is {config.samples} samples, and a round has"
            f" {config.roots.roots_per_round} roots (build.roots.roots_per_round): every sample needs one.",
            hint="Raise build.roots.roots_per_round, or lower build.tokens.",
        )


def check_policy(folder: Path, corpus: Corpus, config: BuildConfig, *, screens: bool = True) -> None:
    """``check_base`` for a policy's folder and a corpus."""
    check_base(folder, config, chunk_tokens=int(corpus.manifest["chunking"]["max_tokens"]), screens=screens)


def check_base(
    folder: Path, config: BuildConfig, *, chunk_tokens: int | None, screens: bool = True, remote_code: bool = False
) -> None:
    """``check_sizes`` for a policy's folder, its separator and its vocabulary, without loading weights.

    A recipe that screens nothing (``screens`` false) has no screening context to fit. Raises ``PolicyError`` for a
    vocabulary that is smaller than the tokenizer's.
    """
    tokenizer, model = load_tokenizer(folder, remote_code=remote_code), load_config(folder, remote_code=remote_code)
    _check_vocabulary(folder, tokenizer, model)
    separator = separator_ids(tokenizer, config.verification.separator)
    if not screens:
        check_budget(config)
        return
    check_sizes(
        config,
        chunk_tokens=chunk_tokens,
        separator_tokens=len(separator),
        bos_tokens=len(bos_ids(tokenizer)),
        policy_context=native_context(model),
    )


def _check_vocabulary(folder: Path, tokenizer: PreTrainedTokenizerBase, model: PreTrainedConfig) -> None:
    rows = getattr(model.get_text_config(), "vocab_size", None)
    needed = max(tokenizer.get_vocab().values(), default=-1) + 1
    if isinstance(rows, int) and rows < needed:
        raise PolicyError(
            f"the tokenizer in {folder} (policy.base) has ids up to {needed - 1}, the model's vocabulary ends at"
            f" {rows - 1} (vocab_size in config.json).",
            hint="Use the tokenizer that the model was trained with.",
        )


def policy_inputs(
    digest: str, folder: Path, numeric: NumericConfig, *, remote_code: bool = False, elsewhere: bool = False
) -> PolicyInputs:
    """A policy as a step's input under a numeric configuration.

    A device named in so many words need not be this machine's where shards run ``elsewhere``. Packing and kernel are
    settled here, since both change the last bits: a scorer that can't do as it is told raises ``PolicyError``.
    """
    named = elsewhere and numeric.device in ("cpu", "cuda")
    device = numeric.device if named else pick_device(numeric.device).type
    return PolicyInputs(
        digest=digest,
        dtype=numeric.dtype,
        device=device,
        threads=numeric.threads,
        tokens_per_batch=numeric.tokens_per_batch,
        packing=_packing(numeric, device, folder, remote_code),
        kernel=_kernel(numeric, device),
        folder=str(folder),
        remote_code=remote_code,
    )


def _packing(numeric: NumericConfig, device: str, folder: Path, remote_code: bool) -> bool:
    """Whether contexts are packed; auto looks at this machine, so nothing is packed for a GPU that is elsewhere."""
    if numeric.packing != "auto" or device != "cuda" or not torch.cuda.is_available():
        return numeric.packing == "on"
    family = load_config(folder, remote_code=remote_code).get_text_config().model_type
    return packs_by_itself(torch.device(device), DTYPES[numeric.dtype], family)


def _kernel(numeric: NumericConfig, device: str) -> Kernel:
    if numeric.kernel != "auto":
        return numeric.kernel
    here = device != "cuda" or torch.cuda.is_available()
    return kernel_by_itself(torch.device(device), DTYPES[numeric.dtype]) if here else "torch"
