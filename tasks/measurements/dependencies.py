"""Which dependencies of a version are measured: a fixed subset, spread over their distances (ours, docs/method.md 6).

Distances are sorted into buckets of powers of two, since a version has few near dependencies and many far ones (or the
other way round). The buckets take turns, each giving its dependencies in the order of a hash, so every distance is
looked at; a mean over the version weighs a dependency by how many of its bucket it stands for.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from storage.home import Home
from storage.refs import Ref
from storage.tables import RowReader
from tasks.corpus.splitting import unit_hash

NEAREST = 128
"""Distances below this are one bucket, tokens."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A dependency as it stands in a sample: table file and row, length of the sample in tokens, index of the token,
    chunk, distance in tokens, recorded entropy in nats and gain as a share.
    """

    file: int
    row: int
    length: int
    position: int
    chunk_id: str
    distance: int
    entropy_before: float
    gain: float


def bucket_of(distance: int) -> int:
    """The bucket of a distance: 0 below 128 tokens, then one for every doubling."""
    return (distance // NEAREST).bit_length()


def bucket_bounds(bucket: int) -> tuple[int, int]:
    """The distances [low, high) of a bucket, tokens."""
    return (NEAREST << bucket) // 2 if bucket else 0, NEAREST << bucket


def choose_dependencies(
    home: Home, samples: Sequence[Ref], *, wanted: int, seed: int
) -> tuple[list[Chosen], dict[int, int]]:
    """Up to ``wanted`` dependencies of the samples, in the order of the tables, and how many each bucket has in all.

    The tables are read in a stream; memory holds ``wanted`` dependencies per bucket.
    """
    counts: dict[int, int] = {}
    heaps: dict[int, list[tuple[float, int, Chosen]]] = {}
    number = 0
    for file, ref in enumerate(samples):
        reader = RowReader(home.path, ref, ["sample_id", "length", "dependencies"])
        for row, sample in enumerate(reader):
            for found in sample["dependencies"]:
                bucket = bucket_of(found["distance"])
                counts[bucket] = counts.get(bucket, 0) + 1
                heap = heaps.setdefault(bucket, [])
                words = (sample["sample_id"], found["position"], found["chunk_id"])
                place = -unit_hash("attribution", seed, *words)
                if len(heap) < wanted or place > heap[0][0]:
                    number += 1
                    one = Chosen(
                        file,
                        row,
                        sample["length"],
                        found["position"],
                        found["chunk_id"],
                        found["distance"],
                        found["entropy_before"],
                        found["gain"],
                    )
                    (heapq.heappushpop if len(heap) == wanted else heapq.heappush)(heap, (place, number, one))
        reader.close()
    shares = turns(counts, wanted)
    chosen = [entry[2] for bucket, heap in heaps.items() for entry in sorted(heap, reverse=True)[: shares[bucket]]]
    return sorted(chosen, key=lambda one: (one.file, one.row, one.position, one.chunk_id)), counts


def turns(counts: Mapping[int, int], wanted: int) -> dict[int, int]:
    """How many each bucket gives when they take turns, the nearest first, until ``wanted`` are given or none is
    left.
    """
    given = dict.fromkeys(sorted(counts), 0)
    left = min(wanted, sum(counts.values()))
    while left:
        for bucket in given:
            if left and given[bucket] < counts[bucket]:
                given[bucket] += 1
                left -= 1
    return given
