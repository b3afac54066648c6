"""What a campaign will take, before anything is computed: roots, passes, FLOPs, hours, disk (docs/method.md 6, ours).

For a round that screens R roots of n tokens (r of them train roots), with P positions a root, K candidates a position,
chunks of c tokens, s tokens of separator and BOS, and a share u of the pairs (position, candidate) being different
pairs (root, chunk):

    entropy         R passes of n tokens
    verification    R P K u passes of c + s + n m / (m + 1) tokens     m = 1 / u positions share a pass; the last of
                                                                       them stands there on average
    placebo         the same for the share ``placebo_fraction`` of the roots
    negatives       where they are verified: r k (negatives_per_positive + spares) passes of c + s + n P / (P + 1),
                    more where some turn out to help
    literal         R passes of n, and R P K passes of c + s + n / 2: one per position and candidate

Within a budget of verification (``within_budget``) a train root has fewer pairs and positives; the probe set has not.

    a root brings   n + s + k (1 + negatives_per_positive) (c + s) tokens     k = positives a root, on average
    roots needed    samples x target / (that x placed_share), at least one per sample

FLOPs are those of ``tasks.measurements.costs``, hours FLOPs / (peak x utilisation) of one GPU. At most
n / (1 + alpha^2) tokens of a root can lie above mean + alpha x std (Cantelli), so P is never more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tasks.measurements.costs import Work, forward_flops, training_flops
from tasks.measurements.model_shape import ModelShape
from tasks.planning.yields import Yield, within_budget
from tasks.rounds.building import BuildConfig


@dataclass(frozen=True, slots=True)
class Hours:
    """FLOPs as GPU-hours."""

    peak_tflops: float
    utilisation: float

    def of(self, flops: float) -> float:
        """Hours of one GPU."""
        return flops / (self.peak_tflops * 1e12 * self.utilisation) / 3600


@dataclass(frozen=True, slots=True)
class Screening:
    """The forward passes of a round."""

    positions: int = 0
    found: int = 0
    """Pairs of position and candidate, verified or not."""
    pairs: int = 0
    """Verified pairs of position and candidate."""
    entropy: Work = field(default_factory=Work)
    verification: Work = field(default_factory=Work)
    placebo: Work = field(default_factory=Work)
    negatives: Work = field(default_factory=Work)
    literal: Work = field(default_factory=Work)
    """What the method as written would read: one pass per position and candidate."""

    @property
    def total(self) -> Work:
        """All that is read."""
        return self.entropy + self.verification + self.placebo + self.negatives


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """One round. FLOPs are floating point operations, sizes bytes."""

    samples: int
    tokens: int
    """Tokens of all samples."""
    wanted: int | None
    """Samples that the budget asks for; None without a budget."""
    roots: int
    """Train roots that are screened."""
    roots_needed: int
    """Roots that the wanted samples need."""
    positives: int
    contexts: int
    """Segments of the samples that are chunks."""
    chunks_needed: int
    """Different chunks, when each is used as often as it may."""
    screening: Screening
    screening_flops: float
    literal_flops: float
    training_steps: int
    training_tokens: int
    training_flops: float
    disk: dict[str, int]
    """What it leaves behind, by kind."""
    disk_while_training: int


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What a plan needs to know of a training."""

    batch: int
    """Samples of an optimizer step."""
    epochs: float
    max_steps: int | None
    recomputed: bool
    """Activations are computed a second time in the backward pass."""
    weight_bytes: int
    """Bytes of a saved weight."""


def plan_round(
    build: BuildConfig, given: Yield, shape: ModelShape, training: TrainingPlan, *, screens: bool, extra: int
) -> RoundPlan:
    """The plan of one round; ``screens`` says whether its recipe looks for uncertainty, ``extra`` are the tokens of
    separator and BOS.
    """
    target, wanted, whole = build.assembly.target_tokens, build.samples, given
    given = within_budget(build, whole)
    cost = given.chunk_tokens + extra
    per_positive = 1 + build.negatives.negatives_per_positive
    brings = given.root_tokens + extra + given.positives * per_positive * cost
    placed = given.placed_share * min(brings, target) / target
    most = math.floor(build.roots.roots_per_round * placed) if screens else wanted or 0
    samples = most if wanted is None else min(wanted, most)
    needed = math.ceil((wanted or most) / placed) if screens else 0
    roots_in = samples * target / brings if brings < target else float(samples)
    contexts = round((samples * target - roots_in * (given.root_tokens + extra)) / cost) if screens else 0
    screening = _screening(build, whole, given, extra) if screens else Screening()
    steps = training.max_steps or math.ceil(math.ceil(samples / training.batch) * training.epochs)
    seen = steps * training.batch * target if training.max_steps else round(samples * target * training.epochs)
    return RoundPlan(
        samples=samples,
        tokens=samples * target,
        wanted=wanted,
        roots=build.roots.roots_per_round if screens else 0,
        roots_needed=needed,
        positives=round(build.roots.roots_per_round * given.positives) if screens else 0,
        contexts=contexts,
        chunks_needed=math.ceil(contexts / min(build.assembly.reuse_cap, max(samples, 1))),
        screening=screening,
        screening_flops=forward_flops(shape, screening.total),
        literal_flops=forward_flops(shape, screening.literal),
        training_steps=steps if samples else 0,
        training_tokens=seen if samples else 0,
        training_flops=training_flops(shape, seen if samples else 0, target, recomputed=training.recomputed),
        disk=_disk(build, given, screening, samples * target, shape.parameters * training.weight_bytes),
        disk_while_training=3 * _BYTES_PER_TRAINED_WEIGHT * shape.parameters,
    )


def _screening(build: BuildConfig, whole: Yield, given: Yield, extra: int) -> Screening:
    roots = build.roots.roots_per_round + build.roots.probe_roots
    length, front = round(given.root_tokens), given.chunk_tokens + extra
    pairs = build.roots.roots_per_round * given.pairs + build.roots.probe_roots * whole.pairs
    found = round(roots * whole.pairs)
    together = 1 / given.distinct_share
    shared = round(front + given.root_tokens * together / (together + 1))
    entropy = Work.of_passes(roots, length, length)
    verification = Work.of_passes(round(pairs * given.distinct_share), shared, 1)
    verification = Work(verification.passes, verification.tokens, verification.pairs, round(pairs))
    return Screening(
        positions=round(roots * given.positions),
        found=found,
        pairs=round(pairs),
        entropy=entropy,
        verification=verification,
        placebo=_part(verification, build.verification.placebo_fraction),
        negatives=_negatives(build, given, front),
        literal=entropy + Work.of_passes(found, round(front + given.root_tokens / 2), 1),
    )


def _negatives(build: BuildConfig, given: Yield, front: float) -> Work:
    verified = build.negative_verification
    if not verified.enabled:
        return Work()
    wanted = build.negatives.negatives_per_positive + verified.spares
    length = round(front + given.root_tokens * given.positions / (given.positions + 1))
    passes = round(build.roots.roots_per_round * given.positives * wanted)
    return Work.of_passes(passes, length, round(given.positions))


def _part(work: Work, share: float) -> Work:
    return Work(*(round(value * share) for value in (work.passes, work.tokens, work.pairs, work.predictions)))


_BYTES = {"positions": 150, "candidates": 10, "verdicts": 22, "negatives": 20}
"""Bytes of a row in Parquet, measured in rounds of the quickstart. [ours]"""
_BYTES_PER_TOKEN = 2.0
"""Bytes of a sample's token in Parquet, segments and dependencies included, measured in rounds of the quickstart."""
_BYTES_PER_TRAINED_WEIGHT = 12
"""Weight and both moments of AdamW in float32; two checkpoints stay while a third is written."""


def _disk(build: BuildConfig, given: Yield, screening: Screening, tokens: int, policy: int) -> dict[str, int]:
    roots = build.roots.roots_per_round if screening.pairs else 0
    negatives = roots * given.positives * build.negatives.depth if build.negatives.negatives_per_positive else 0.0
    rows = {
        "positions": screening.positions,
        "candidates": screening.found * build.retrieval.overfetch,
        "verdicts": screening.pairs,
        "negatives": negatives,
    }
    tables = sum(rows[name] * size for name, size in _BYTES.items())
    return {"tables": round(tables), "samples": round(tokens * _BYTES_PER_TOKEN), "policy": policy}


def vector_bytes(chunks: int, dimension: int) -> int:
    """Bytes of a corpus's vectors: the tables in float32, and as much again in the index."""
    return 2 * 4 * chunks * dimension
