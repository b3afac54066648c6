"""The vector index and FAISS at sizes that no machine has embedded texts for: synthetic vectors, and named so."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from storage.vectors_edge import EdgeIndex
from tasks.benchmarks import faiss_engine
from tasks.benchmarks.children import in_child, peak_memory
from tasks.benchmarks.measurement import Figure, Measurement, Target
from tasks.benchmarks.sizes import Size
from tasks.progress import track

DIMENSION = 384
BLOCK = 20_000
TOP = 32
CENTRES = 2_000
SPREAD = 0.6
MOST_GB = 12.0

Way = Literal["ours, exact", "ours, graph", "FAISS, flat", "FAISS, graph"]


class Scaled(BaseModel):
    """What one engine did with so many vectors; ``found`` are its neighbours."""

    model_config = ConfigDict(frozen=True)

    load_seconds: float
    search_seconds: float
    gigabytes: float
    found: list[list[int]]


def scale(size: Size, threads: int) -> list[Measurement]:
    """Load, search and memory of every engine at every number of vectors, each in a process of its own."""
    measurements: list[Measurement] = []
    for count in size.scale:
        ways: list[Way] = ["ours, exact"]
        ways += ["FAISS, flat"] if faiss_engine.faiss_is_there() else []
        if count <= size.scale_graph:
            ways += ["ours, graph"]
            ways += ["FAISS, graph"] if faiss_engine.faiss_is_there() else []
        done = {
            way: in_child(scaled, way, count, size.queries, threads)
            for way in track(ways, total=len(ways), description=f"{count:,} synthetic vectors", unit="engines")
        }
        measurements += _rows(count, size.queries, done)
    return measurements


def _rows(count: int, queries: int, done: dict[Way, Scaled]) -> list[Measurement]:
    truth = np.array(done["ours, exact"].found, np.int64)
    conditions: dict[str, str | int | float] = {
        "vectors": f"{count:,} synthetic: {CENTRES} centres with noise",
        "dimensions": DIMENSION,
        "queries": queries,
        "top": TOP,
    }
    for way, one in done.items():
        if way != "ours, exact":
            share = np.mean([len(set(a) & set(b)) / TOP for a, b in zip(truth.tolist(), one.found, strict=True)])
            conditions[f"neighbours shared with ours, exact: {way}"] = round(float(share), 4)
    found: list[Measurement] = []
    for name, unit, field in (
        ("load", "s", "load_seconds"),
        ("search", "s", "search_seconds"),
        ("peak memory", "GB", "gigabytes"),
    ):
        ours, *others = [Figure.of(way, [getattr(one, field)]) for way, one in done.items()]
        limited = field == "gigabytes"
        found.append(
            Measurement(
                name=f"{name}, {count:,} synthetic vectors",
                unit=unit,
                ours=ours,
                alternatives=tuple(others),
                ratio=ours.value if limited else None,
                ratio_of="GB" if limited else "",
                target=Target(sense="at most", value=MOST_GB) if limited else None,
                conditions=conditions,
            )
        )
    return found


def scaled(way: Way, count: int, queries: int, threads: int) -> Scaled:
    """Loads ``count`` synthetic vectors into one engine, searches once cold and three times more, and says how long
    the fastest took.
    """
    asked = next(synthetic(queries, seed=1))
    top = min(TOP, count)
    with tempfile.TemporaryDirectory(prefix="policylong-bench-") as folder, peak_memory() as peak:
        spent = 0.0
        index: Any
        if way.startswith("ours"):
            index = EdgeIndex(Path(folder), DIMENSION, exact=way == "ours, exact")
        else:
            index = (faiss_engine.flat if way == "FAISS, flat" else faiss_engine.graph)(DIMENSION, threads)
        first = 0
        for block in synthetic(count, seed=0):
            start = time.perf_counter()
            if way.startswith("ours"):
                index.load(np.arange(first, first + len(block)), block)
            else:
                index.add(block)
            spent += time.perf_counter() - start
            first += len(block)
        start = time.perf_counter()
        if way.startswith("ours"):
            index.finish()
        elif way == "FAISS, graph":
            faiss_engine.breadth(index, 64)
        spent += time.perf_counter() - start
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            found = _found(way, index, asked, top)
            seconds.append(time.perf_counter() - start)
        if way.startswith("ours"):
            index.close()
    return Scaled(load_seconds=spent, search_seconds=min(seconds), gigabytes=peak.bytes / 1e9, found=found)


def _found(way: Way, index: Any, queries: NDArray[np.float32], top: int) -> list[list[int]]:
    if way.startswith("ours"):
        return [[hit.chunk for hit in hits] for hits in index.search(queries, top)]
    return [[int(number) for number in row] for row in faiss_engine.neighbours(index, queries, top)]


def synthetic(count: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """``count`` unit vectors, float32 [at most BLOCK, DIMENSION] at a time: centres, the same for every seed, with
    noise.
    """
    centres = np.random.default_rng(7).standard_normal((CENTRES, DIMENSION), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    draw = np.random.default_rng(seed)
    for start in range(0, count, BLOCK):
        rows = min(BLOCK, count - start)
        noise = draw.standard_normal((rows, DIMENSION), dtype=np.float32) * (SPREAD / DIMENSION**0.5)
        block = centres[draw.integers(0, CENTRES, rows)] + noise
        yield block / np.linalg.norm(block, axis=1, keepdims=True)
