"""FAISS, where it is installed: the alternative to the vector index. It is an optional extra; nothing else uses it."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

MISSING = "FAISS is not installed (pip install 'policylong[bench]'): its columns are left out."
GRAPH_EDGES = 16
GRAPH_BUILD = 100
"""Of a graph: edges per node and breadth of the search while building; those of our own engine's graph."""


def faiss_is_there() -> bool:
    """Whether FAISS can be imported."""
    return importlib.util.find_spec("faiss") is not None


def _faiss(threads: int) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its wrapper's classes lack a module name, of which Python warns
        faiss = importlib.import_module("faiss")
    faiss.omp_set_num_threads(threads)
    return faiss


def flat(dimension: int, threads: int) -> Any:
    """An index that compares with every vector."""
    return _faiss(threads).IndexFlatIP(dimension)


def graph(dimension: int, threads: int) -> Any:
    """A HNSW graph by inner product."""
    faiss = _faiss(threads)
    index = faiss.IndexHNSWFlat(dimension, GRAPH_EDGES, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = GRAPH_BUILD
    return index


def breadth(index: Any, wanted: int) -> None:
    """Sets how many candidates a graph's search keeps."""
    index.hnsw.efSearch = wanted


def neighbours(index: Any, queries: NDArray[np.float32], top: int) -> NDArray[np.int64]:
    """Numbers of the nearest vectors, int64 [queries, top]."""
    return np.asarray(index.search(queries, top)[1], np.int64)
