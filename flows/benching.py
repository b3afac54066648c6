"""The benchmarks put together: corpora and policy made once in a home of their own, then what was asked for.

    report = bench(home, ("scoring", "retrieval"), SIZES["full"], threads=2, load_before=load_now())

What a benchmark needs (two corpora of the installed Python packages, embedded) is checkpointed like any ingest and
found finished the next time; what it measures is done anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch

from flows.build import build_round
from flows.ingest import ingest
from flows.presets import Preset, load_preset
from flows.rounds import round_inputs
from storage.campaigns import list_campaigns
from storage.corpora import open_corpus
from storage.home import Home
from storage.policies import policy_folder
from tasks.benchmarks import faiss_engine
from tasks.benchmarks.assembling import assembling
from tasks.benchmarks.gpu import QWEN_3B, gpu
from tasks.benchmarks.growth import growth
from tasks.benchmarks.machine import load_now, this_machine
from tasks.benchmarks.measurement import Measurement, Report
from tasks.benchmarks.memory import memory
from tasks.benchmarks.rounds import round_shares
from tasks.benchmarks.scaling import scale
from tasks.benchmarks.scene import Scene
from tasks.benchmarks.scoring import scoring
from tasks.benchmarks.searching import searching
from tasks.benchmarks.sizes import Size
from tasks.benchmarks.yields import yields
from tasks.resources import release
from tasks.rounds.building import policy_inputs
from tasks.training.base_policy import take_base

Name = Literal["scoring", "retrieval", "assembly", "round", "yield", "scale"]
NAMES: tuple[Name, ...] = get_args(Name)
IN_ALL: tuple[Name, ...] = tuple(name for name in NAMES if name != "scale")
LARGE = "bench-python"
PROBE = "build.roots.probe_roots=2"
"""Of a smaller round: few probe roots, as few as a whole one has beside its others."""
NO_GPU = "the row of a large GPU: this machine has none."


@dataclass(frozen=True)
class Bench:
    """What the benchmarks share; every part is made on first need."""

    home: Home
    size: Size
    threads: int

    def run(self, name: Name) -> list[Measurement]:
        """The measurements of one benchmark."""
        ways: dict[Name, Callable[[], list[Measurement]]] = {
            "scoring": self._scoring,
            "retrieval": lambda: searching(self.large, self.size, self.threads),
            "assembly": lambda: [assembling(self.large, self.size)],
            "round": self._rounds,
            "yield": lambda: yields(self.home, self.version),
            "scale": lambda: scale(self.size, self.threads),
        }
        torch.set_num_threads(self.threads)
        try:
            return ways[name]()
        finally:
            release()

    @cached_property
    def quickstart(self) -> Scene:
        """The quickstart's corpus, policy and settings."""
        return self._scene(self._preset("quickstart", *self._smaller))

    @cached_property
    def large(self) -> Scene:
        """A larger corpus of the same kind at the settings of ``books``."""
        ingest(str(self.home.path), self._large_preset.corpus)
        roots = max(self.size.assembled_roots, self.size.growth_roots, self.size.queries)
        return self._scene(self._preset("books", f"corpus.name={LARGE}", f"build.roots.roots_per_round={roots}"))

    @cached_property
    def version(self) -> str:
        """The dataset version of a quickstart round that was built now."""
        self.quickstart_round  # noqa: B018
        return self._versions[-1]

    @cached_property
    def quickstart_round(self) -> list[Measurement]:
        """A round at quickstart settings, built anew."""
        return self._built("quickstart", None, *self._smaller)

    @cached_property
    def _versions(self) -> list[str]:
        return []

    def _scoring(self) -> list[Measurement]:
        found = [*scoring(self.quickstart, self.large, self.size), memory(self.size, self.threads)]
        return [*found, gpu(QWEN_3B, self.size.repeats)] if torch.cuda.is_available() else found

    def _rounds(self) -> list[Measurement]:
        corpus = self.large.corpus.digest
        return [
            *self.quickstart_round,
            *self._built("books", corpus, f"build.roots.roots_per_round={self.size.round_roots}", PROBE),
            growth(self.large, self.size),
        ]

    def _built(self, preset: str, corpus: str | None, *changes: str) -> list[Measurement]:
        """A round of its own campaign, with roots that no round before it had, so that nothing is found finished."""
        number = len(list_campaigns(self.home))
        chosen = self._preset(
            preset,
            *changes,
            f"campaign.name=bench-{number}",
            f"build.roots.seed={number}",
            "build.rounds=1",
        )
        inputs = round_inputs(self.home, chosen, 1, corpus)
        roots = chosen.build.roots
        conditions: dict[str, str | int | float] = {
            "roots": roots.roots_per_round + roots.probe_roots,
            "chunks in the index": open_corpus(self.home, inputs.corpus).chunks.rows,
            "K": chosen.build.retrieval.top_k,
            "round": "a whole build, with Prefect, MLflow and publication; models and index opened in it",
        }
        release()
        return round_shares(
            lambda: self._versions.append(build_round(str(self.home.path), inputs, chosen.build)),
            f"{preset} settings",
            conditions,
        )

    def _scene(self, preset: Preset) -> Scene:
        corpus = open_corpus(self.home, ingest(str(self.home.path), preset.corpus, preset.index))
        digest = take_base(self.home, preset.policy)
        policy = policy_inputs(digest, policy_folder(self.home, digest), preset.build.numeric)
        return Scene(self.home, corpus, policy, preset.build, preset.corpus.embedder, preset.index)

    def _preset(self, name: str, *changes: str) -> Preset:
        threads = (f"build.numeric.threads={self.threads}", f"corpus.embedder.threads={self.threads}")
        return load_preset(name, (*threads, "build.numeric.device=cpu", *changes))

    @cached_property
    def _large_preset(self) -> Preset:
        return self._preset(
            "quickstart", f"corpus.name={LARGE}", f"corpus.python.budget_characters={self.size.corpus_characters}"
        )

    @property
    def _smaller(self) -> tuple[str, ...]:
        """What the small size takes from the quickstart: some of its text, some of its roots."""
        if self.size.name == "full":
            return ()
        return (
            f"corpus.name={LARGE}",
            f"corpus.python.budget_characters={self.size.corpus_characters}",
            f"build.roots.roots_per_round={self.size.yield_roots}",
            PROBE,
        )


def bench(
    home: Home,
    names: Sequence[Name],
    size: Size,
    threads: int,
    load_before: float,
    *,
    tell: Callable[[Name, float], None] = lambda name, seconds: None,
) -> Report:
    """Runs the benchmarks in order; ``tell`` hears each one's name and seconds when it is done.

    ``load_before`` is the machine's load before anything of this began.
    """
    began = time.monotonic()
    work = Bench(home, size, threads)
    found: list[Measurement] = []
    for name in names:
        start = time.monotonic()
        found += work.run(name)
        tell(name, time.monotonic() - start)
    return Report(
        machine=this_machine(threads, load_before),
        size=size.name,
        seconds=round(time.monotonic() - began, 1),
        measurements=tuple(found),
        left_out=tuple(_left_out(names)),
    )


def _left_out(names: Sequence[Name]) -> list[str]:
    found = []
    if not faiss_engine.faiss_is_there() and {"retrieval", "scale"} & set(names):
        found.append(faiss_engine.MISSING)
    if "scoring" in names and not torch.cuda.is_available():
        found.append(NO_GPU)
    if tuple(names) == IN_ALL:
        found.append("sizes of 200,000 vectors and more: policylong bench scale.")
    return found


__all__ = ["IN_ALL", "NAMES", "Bench", "Name", "bench", "load_now"]
