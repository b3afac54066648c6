"""What a whole round spends outside the policy and the embedder, and on retrieval."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from models.embedders import Embedder
from models.scoring import Scorer
from tasks.benchmarks.measurement import Figure, Measurement, Target
from tasks.samples.assembly import assemble
from tasks.screening.entropy import screen_entropy
from tasks.screening.negatives import find_negatives
from tasks.screening.retrieval import retrieve
from tasks.screening.roots import cut_roots
from tasks.screening.verification import verify

MODELS = ((Scorer, "score", "policy"), (Embedder, "encode", "embedder"))
STEPS = (cut_roots, screen_entropy, retrieve, verify, find_negatives, assemble)

Intervals = list[tuple[float, float]]


@dataclass(slots=True)
class Watch:
    """When what ran: intervals in seconds of one clock, by name; they may overlap where work does."""

    intervals: dict[str, Intervals] = field(default_factory=lambda: defaultdict(list))

    def seconds(self, *names: str) -> float:
        """Seconds in which at least one of these ran."""
        return covered([interval for name in names for interval in self.intervals.get(name, [])])


def covered(intervals: Intervals) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, reached))
        reached = max(reached, stop)
    return total


@contextmanager
def watched() -> Iterator[Watch]:
    """While the block runs, every use of a policy and an embedder and every screening step is timed."""
    watch = Watch()
    with ExitStack() as undo:
        for owner, name, label in MODELS:
            _watch(watch, owner, name, label, undo)
        for step in STEPS:
            _watch(watch, step, "produce", step.name, undo)
        yield watch


def _watch(watch: Watch, owner: Any, name: str, label: str, undo: ExitStack) -> None:
    original = getattr(owner, name)

    @wraps(original)
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            watch.intervals[label].append((start, time.perf_counter()))

    setattr(owner, name, timed)
    undo.callback(setattr, owner, name, original)


def round_shares(
    build: Callable[[], object], settings: str, conditions: dict[str, str | int | float]
) -> list[Measurement]:
    """Builds a round once and says which share of its time was not the models', and which was retrieval's."""
    with watched() as watch:
        start = time.perf_counter()
        build()
        whole = time.perf_counter() - start
    models = watch.seconds("policy", "embedder")
    retrieval = watch.seconds(retrieve.name)
    parts: dict[str, str | int | float] = {
        f"seconds in {name}": round(watch.seconds(name), 2)
        for name in ("policy", "embedder", *(step.name for step in STEPS))
    }
    known = watch.seconds("policy", "embedder", *(step.name for step in STEPS))
    parts["seconds outside all steps"] = round(whole - known, 2)
    rest = Figure.of("the round", [whole])
    return [
        Measurement(
            name=f"retrieval with its query embedding, {settings}",
            unit="s",
            ours=Figure.of("retrieval", [retrieval]),
            alternatives=(rest,),
            ratio=retrieval / whole,
            ratio_of="share of the round",
            target=Target(sense="at most", value=0.08),
            conditions={**conditions, **parts},
        ),
        Measurement(
            name=f"outside policy and embedder, {settings}",
            unit="s",
            ours=Figure.of("outside policy and embedder", [whole - models]),
            alternatives=(rest,),
            ratio=(whole - models) / whole,
            ratio_of="share of the round",
            target=Target(sense="at most", value=0.10),
            conditions={**conditions, **parts},
        ),
    ]
