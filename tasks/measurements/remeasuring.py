"""Data of round j measured under checkpoint k: do the dependencies of a version hold for another policy?

For a fixed subset of a version's kept verdicts, both entropies are computed once more under the policy, in the very
contexts of verification (docs/method.md 2.5): gain = (H_t - H'_t) / H_t with both under that policy. Its mean, and the
share that would be kept, for every version and every checkpoint make the matrix that says how fast data grows stale.
[ours, docs/method.md 6]
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from models.policy import load_policy
from models.scoring import Context, Scorer
from models.training_limits import torch_threads
from storage.errors import ConfigError
from storage.home import Home
from storage.policies import policy_folder, policy_record
from storage.schemas import ROOTS, VERDICTS
from tasks.corpus.splitting import unit_hash
from tasks.measurements.measurement import MeasuredVersion, MeasurementConfig, measured_once, measurement_key
from tasks.progress import progress
from tasks.resources import bos_ids
from tasks.screening.verification import prefixed, relative_gain, separator_ids

STEP = "measured-under"
CODE_VERSION = 5
Verdict = tuple[int, int, int, float]
"""(row of the root, t, row of the chunk, recorded gain)."""


class RemeasuringConfig(MeasurementConfig):
    """What is measured. A dependency costs at most two passes in the screening context: 256 of 2K tokens, 1M tokens."""

    dependencies: int = Field(256, ge=1, description="Kept verdicts of a version that are measured, by hash. [ours 6]")


class MeasuredUnder(BaseModel):
    """The result for one version under one policy; means are null when nothing was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    version: str
    dependencies: int = Field(description="Kept verdicts of the version's train roots.")
    count: int = Field(description="Of these, measured.")
    mean_gain: float | None = Field(
        description="Mean gain under this policy; a position that has become certain can weigh heavily in it."
    )
    pooled_gain: float | None = Field(
        description="(sum of H_t - sum of H'_t) / sum of H_t: such a position weighs little."
    )
    standard_error: float | None = Field(description="Of the mean gain, the dependencies taken as independent.")
    kept_share: float | None = Field(description="Share whose gain is over the version's epsilon under this policy.")
    recorded_gain: float | None = Field(description="Mean gain of the same dependencies in their verdicts.")
    mean_entropy_before: float | None = Field(description="Without the chunk, nats.")
    mean_entropy_after: float | None = Field(description="With it, nats.")
    tokens_read: int = Field(description="Tokens of forward pass.")
    note: str = Field("", description="What a reader has to know: nothing to measure.")

    def figures(self) -> dict[str, float]:
        """The figures for a report or a tracked run; those without a value are left out."""
        values = {
            "measured_under_gain": self.mean_gain,
            "measured_under_pooled_gain": self.pooled_gain,
            "measured_under_standard_error": self.standard_error,
            "measured_under_kept_share": self.kept_share,
            "measured_under_recorded_gain": self.recorded_gain,
            "measured_under_count": float(self.count),
        }
        return {name: value for name, value in values.items() if value is not None}


def measured_under(home: Home, version: str, policy: str, config: RemeasuringConfig) -> MeasuredUnder:
    """A published version's dependencies under a registered policy; recorded, so a second call reads it.

    ``version`` is a round number, a prefix or full, ``policy`` a digest or prefix. A version without kept verdicts
    gives a result that says so. Raises ``PolicyError`` when the policy can't be loaded, reads other tokens or gives
    NaN, and ``ConfigError`` when a root and its chunk do not fit its context.
    """
    measured = MeasuredVersion.open(home, version)
    digest = policy_record(home, policy).digest
    key = measurement_key(STEP, CODE_VERSION, {"policy": digest, "version": measured.version}, config)
    return measured_once(home, key, MeasuredUnder, lambda: _measure(measured, digest, config))


def _measure(version: MeasuredVersion, digest: str, config: RemeasuringConfig) -> MeasuredUnder:
    total, chosen = _chosen(version, config)
    result = MeasuredUnder(
        policy=digest,
        version=version.version,
        dependencies=total,
        count=len(chosen),
        mean_gain=None,
        pooled_gain=None,
        standard_error=None,
        kept_share=None,
        recorded_gain=None,
        mean_entropy_before=None,
        mean_entropy_after=None,
        tokens_read=0,
        note="" if chosen else "the version has no kept verdicts",
    )
    if not chosen:
        return result
    before, after, tokens = _entropies(version, digest, chosen, config)
    gains = [relative_gain(was, now) for was, now in zip(before, after, strict=True)]
    count, mean = len(gains), math.fsum(gains) / len(gains)
    variance = math.fsum((gain - mean) ** 2 for gain in gains) / (count - 1) if count > 1 else None
    return result.model_copy(
        update={
            "mean_gain": mean,
            "pooled_gain": relative_gain(math.fsum(before), math.fsum(after)),
            "standard_error": None if variance is None else math.sqrt(variance / count),
            "kept_share": sum(gain > version.verification.epsilon for gain in gains) / count,
            "recorded_gain": math.fsum(recorded for *_, recorded in chosen) / count,
            "mean_entropy_before": math.fsum(before) / count,
            "mean_entropy_after": math.fsum(after) / count,
            "tokens_read": tokens,
        }
    )


def _chosen(version: MeasuredVersion, config: RemeasuringConfig) -> tuple[int, list[Verdict]]:
    """How many kept verdicts the train roots have, and those that are measured, in order."""
    roots = version.frame(ROOTS, ["role"]).with_row_index("root")
    train = roots.filter(pl.col("role") == "train").select(pl.col("root").cast(pl.Int32))
    verdicts = version.frame(VERDICTS, ["root", "t", "chunk", "gain", "kept"]).filter(pl.col("kept")).drop("kept")
    kept = verdicts.join(train, on="root", how="semi")
    first = heapq.nsmallest(
        config.dependencies, kept.iter_rows(), key=lambda row: unit_hash("measured-under", config.seed, *row[:3])
    )
    return len(kept), sorted(first)


def _entropies(
    version: MeasuredVersion, digest: str, chosen: Sequence[Verdict], config: RemeasuringConfig
) -> tuple[list[float], list[float], int]:
    """Entropies (nats) without and with the chunk, in the order of ``chosen``, and the tokens read."""
    folder = policy_folder(version.home, digest)
    version.check_tokens(digest, folder, remote_code=config.remote_code)
    policy = load_policy(
        folder, device=config.device, dtype=config.dtype, remote_code=config.remote_code, digest=digest
    )
    passages = version.passages(policy.tokenizer)
    bos, separator = bos_ids(policy.tokenizer), separator_ids(policy.tokenizer, version.verification.separator)
    contexts: dict[tuple[int, int | None], list[int]] = {}
    for root, t, chunk, _ in chosen:
        for key in ((root, None), (root, chunk)):
            wanted = contexts.setdefault(key, [])
            if t not in wanted:
                wanted.append(t)
    asked = []
    for (root, front), wanted in contexts.items():
        tokens = passages.root(root).ids
        ids = (*bos, *tokens) if front is None else prefixed(bos, passages.chunk_ids(front), separator, tokens)
        if len(ids) > policy.context:
            raise ConfigError(
                f"root {root} with chunk {front} needs {len(ids)} tokens, the policy's context is {policy.context}.",
                hint="Measure with a policy of a longer context.",
            )
        asked.append(Context(ids, [len(ids) - len(tokens) + t for t in wanted]))
    passages.close()
    scorer = Scorer(policy.model, tokens_per_batch=config.tokens_per_batch)
    total = sum(context.needed for context in asked)
    with torch_threads(config.threads), progress("measured under", total=total, unit="tokens") as advance:
        scores = scorer.score(asked, progress=advance)
    found: dict[tuple[int, int | None, int], float] = {}
    for ((root, front), wanted), score in zip(contexts.items(), scores, strict=True):
        found.update({(root, front, t): entropy for t, entropy in zip(wanted, score.entropy.tolist(), strict=True)})
    before = [found[root, None, t] for root, t, _, _ in chosen]
    return before, [found[root, chunk, t] for root, t, chunk, _ in chosen], scorer.tokens_read
