"""The vector index beside FAISS on real chunks and real queries: recall and time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.tables import read_table
from storage.vectors import vector_batches
from storage.vectors_edge import EdgeIndex
from tasks.benchmarks import faiss_engine
from tasks.benchmarks.measurement import Figure, Measurement, Target
from tasks.benchmarks.scene import Scene
from tasks.benchmarks.sizes import Size
from tasks.benchmarks.timing import in_turns
from tasks.resources import embedder_for

TOP = 32
BREADTHS = (32, 64, 128, 256, 512)

Vectors = NDArray[np.float32]
Search = Callable[[], object]


def searching(scene: Scene, size: Size, threads: int) -> list[Measurement]:
    """Recall and time of ``queries`` real queries among the real chunks of the scene."""
    vectors = real_vectors(scene, size.chunks)
    return compared_search(vectors, real_queries(scene, size.queries), size.repeats, threads)


def real_vectors(scene: Scene, most: int) -> Vectors:
    """The vectors of the first chunks, float32 [n, d]."""
    count = min(most, scene.corpus.chunks.rows)
    found = np.empty((scene.corpus.chunks.rows, scene.corpus.dimension), np.float32)
    for ref in scene.corpus.vectors:
        for ids, batch in vector_batches(scene.home, ref, scene.corpus.dimension):
            found[ids] = batch
    return found[:count].copy()


def real_queries(scene: Scene, wanted: int) -> Vectors:
    """The vectors of the first ``wanted`` queries that the policy's uncertain positions ask, float32 [n, d]."""
    roots = scene.roots()
    count, texts = min(wanted, len(scene.rows(wanted))), []
    for start in range(0, count, 8):
        rows = scene.rows(count)[start : start + 8]
        texts += read_table(scene.home.path, scene.positions(roots, rows), ["query"])["query"].to_list()
        if len(texts) >= wanted:
            break
    return embedder_for(scene.embedder).encode(texts[:wanted], "query")


def compared_search(vectors: Vectors, queries: Vectors, repeats: int, threads: int) -> list[Measurement]:
    """Our index, exact and as a graph, and FAISS's two, on the same vectors; truth is the cosine in float64."""
    top = min(TOP, len(vectors))
    truth = nearest(vectors, queries, top)
    with tempfile.TemporaryDirectory(prefix="policylong-bench-") as folder:
        exact, graph = (_ours(Path(folder) / name, vectors, exact=name == "exact") for name in ("exact", "graph"))
        found = {"ours, exact": _numbers(exact, queries, top), "ours, graph": _numbers(graph, queries, top)}
        ways: dict[str, Search] = {
            "ours, exact": lambda: exact.search(queries, top),
            "ours, graph": lambda: graph.search(queries, top),
        }
        chosen: dict[str, str | int | float] = {}
        if faiss_engine.faiss_is_there():
            _add_faiss(ways, found, chosen, vectors, queries, truth, threads)
        times = in_turns(ways, repeats=max(3, repeats))
        exact.close()
        graph.close()
    recalls = {way: recall(truth, numbers) for way, numbers in found.items()}
    conditions = {
        "chunks": len(vectors),
        "queries": len(queries),
        "top": top,
        "dimensions": vectors.shape[1],
        "vectors": "real chunks, real queries",
        **chosen,
    }
    others = [way for way in ways if way != "ours, exact"]
    return [
        Measurement(
            name=f"recall of {len(queries)} queries, top {top}",
            unit="share",
            ours=Figure.of("ours, exact", [recalls["ours, exact"]]),
            alternatives=tuple(Figure.of(way, [recalls[way]]) for way in others),
            ratio=recalls["ours, exact"],
            ratio_of="recall",
            target=Target(sense="at least", value=0.98),
            conditions=conditions,
        ),
        Measurement(
            name=f"time of {len(queries)} queries, top {top}",
            unit="s",
            ours=times.figure("ours, exact"),
            alternatives=tuple(times.figure(way) for way in others),
            ratio=times.ratio("FAISS, flat", "ours, exact") if "FAISS, flat" in ways else None,
            ratio_of="FAISS flat over ours" if "FAISS, flat" in ways else "",
            conditions=conditions,
        ),
    ]


def _add_faiss(
    ways: dict[str, Search],
    found: dict[str, NDArray[np.int64]],
    chosen: dict[str, str | int | float],
    vectors: Vectors,
    queries: Vectors,
    truth: NDArray[np.int64],
    threads: int,
) -> None:
    """Adds FAISS's indexes; its graph searches as broadly as it must for the recall of our graph, or of 0.98."""
    top = truth.shape[1]
    flat, graph = faiss_engine.flat(vectors.shape[1], threads), faiss_engine.graph(vectors.shape[1], threads)
    flat.add(vectors)
    graph.add(vectors)
    wanted = min(0.98, recall(truth, found["ours, graph"]))
    for breadth in BREADTHS:
        faiss_engine.breadth(graph, breadth)
        chosen["breadth of FAISS's graph search"] = breadth
        if recall(truth, faiss_engine.neighbours(graph, queries, top)) >= wanted:
            break
    found["FAISS, flat"] = faiss_engine.neighbours(flat, queries, top)
    found["FAISS, graph"] = faiss_engine.neighbours(graph, queries, top)
    ways["FAISS, flat"] = lambda: flat.search(queries, top)
    ways["FAISS, graph"] = lambda: graph.search(queries, top)


def _ours(folder: Path, vectors: Vectors, *, exact: bool) -> EdgeIndex:
    folder.mkdir()
    index = EdgeIndex(folder, vectors.shape[1], exact=exact)
    index.load(np.arange(len(vectors)), vectors)
    index.finish()
    return index


def _numbers(index: EdgeIndex, queries: Vectors, top: int) -> NDArray[np.int64]:
    return np.array([[hit.chunk for hit in hits] for hits in index.search(queries, top)], np.int64)


def nearest(vectors: Vectors, queries: Vectors, top: int) -> NDArray[np.int64]:
    """The nearest vectors of each query by cosine in float64, int64 [queries, top]; ties by number."""
    found = np.empty((len(queries), top), np.int64)
    for row, query in enumerate(queries):
        scores = vectors.astype(np.float64) @ query.astype(np.float64)
        found[row] = np.lexsort((np.arange(len(scores)), -np.round(scores, 6)))[:top]
    return found


def recall(truth: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """Share of the true neighbours that were found, over all queries."""
    hits = sum(len(set(one) & set(other)) for one, other in zip(truth.tolist(), found.tolist(), strict=True))
    return hits / max(1, truth.size)
