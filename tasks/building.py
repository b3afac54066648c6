"""The configuration of a round's data construction, as a whole and checked as a whole before any work is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.policy import load_config, load_tokenizer, native_context, pick_device
from storage.corpora import Corpus
from storage.errors import ConfigError
from tasks.assembly import AssemblyConfig
from tasks.entropy import EntropyConfig
from tasks.fillers import FillersConfig
from tasks.negatives import NegativesConfig
from tasks.resources import PolicyInputs, bos_ids
from tasks.retrieval import RetrievalConfig
from tasks.roots import RootsConfig
from tasks.verification import VerificationConfig, separator_ids


class NumericConfig(BaseModel):
    """How the policy's numbers are computed: part of a version's identity, since it changes the last bits of an
    entropy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Type the policy screens in. Ours.")
    device: str = Field("auto", description="cpu, cuda, or auto: the first GPU where there is one.")
    threads: int = Field(2, ge=1, description="torch threads of a task (more than one changes the last bits of a sum).")
    tokens_per_batch: int = Field(8192, ge=1, description="Tokens of a batch of contexts, padding included. Ours.")


class BuildConfig(BaseModel):
    """Everything that decides what a round's samples are, given corpus and policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = Field("policylong", description="Which method (policylong recipes lists them).")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options that only this recipe has (policylong recipes NAME)."
    )
    rounds: int = Field(4, ge=1, description="Rounds that share the roots. Paper: 4.")
    tokens: int | None = Field(
        None,
        ge=1,
        description="Budget of a round, tokens: as many whole samples as it holds; null: as many as the roots give."
        " Paper: 1B.",
    )
    lag: int = Field(
        0,
        ge=0,
        description="Rounds between the policy that screens and the one that is trained: 1 builds the next round while"
        " this one trains. Ours (docs/method.md 6).",
    )
    roots_per_shard: int = Field(
        8, ge=1, description="Roots of one checkpointed task: at most some ten minutes of work. Ours."
    )
    screening_tokens: int = Field(
        2048, ge=32, description="Context of chunk and root, the same in all rounds. Paper: about 2K."
    )
    roots: RootsConfig = RootsConfig()
    entropy: EntropyConfig = EntropyConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    verification: VerificationConfig = VerificationConfig()
    negatives: NegativesConfig = NegativesConfig()
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
            f"a budget of {config.tokens} tokens does not hold one sample of {config.assembly.target_tokens}.",
            hint="Raise build.tokens, or lower build.assembly.target_tokens.",
        )


def check_sizes(
    config: BuildConfig, *, chunk_tokens: int, separator_tokens: int, bos_tokens: int, policy_context: int
) -> None:
    """Checks that everything fits before any work is done; raises ``ConfigError`` naming value, limit and option."""
    together = bos_tokens + config.roots.root_tokens + separator_tokens + chunk_tokens
    if together > config.screening_tokens:
        raise ConfigError(
            f"a root of {config.roots.root_tokens} tokens, a chunk of {chunk_tokens} and"
            f" {separator_tokens + bos_tokens} more make {together}, the screening context is"
            f" {config.screening_tokens}.",
            hint="Lower build.roots.root_tokens or corpus.chunking.max_tokens, or raise build.screening_tokens.",
        )
    check_budget(config)
    if config.screening_tokens > policy_context:
        raise ConfigError(
            f"the screening context is {config.screening_tokens} tokens, the policy's own context is {policy_context}.",
            hint="Lower build.screening_tokens.",
        )
    smallest = bos_tokens + config.roots.root_tokens + separator_tokens + chunk_tokens
    if config.assembly.target_tokens < smallest:
        raise ConfigError(
            f"a sample of {config.assembly.target_tokens} tokens does not hold one root and one chunk ({smallest}).",
            hint="Raise build.assembly.target_tokens.",
        )


def check_policy(folder: Path, corpus: Corpus, config: BuildConfig, *, screens: bool = True) -> None:
    """``check_sizes`` for a policy's folder and a corpus, without loading weights.

    A recipe that screens nothing (``screens`` false) has no screening context to fit.
    """
    if not screens:
        check_budget(config)
        return
    tokenizer = load_tokenizer(folder)
    check_sizes(
        config,
        chunk_tokens=int(corpus.manifest["chunking"]["max_tokens"]),
        separator_tokens=len(separator_ids(tokenizer, config.verification.separator)),
        bos_tokens=len(bos_ids(tokenizer)),
        policy_context=native_context(load_config(folder)),
    )


def policy_inputs(digest: str, folder: Path, numeric: NumericConfig, *, remote_code: bool = False) -> PolicyInputs:
    """A policy as a step's input under a numeric configuration."""
    return PolicyInputs(
        digest=digest,
        dtype=numeric.dtype,
        device=pick_device(numeric.device).type,
        threads=numeric.threads,
        tokens_per_batch=numeric.tokens_per_batch,
        folder=str(folder),
        remote_code=remote_code,
    )
