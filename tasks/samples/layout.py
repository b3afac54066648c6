"""A full draft laid out as a row of ``samples``: order, cuts, absolute token positions and dependencies.

Rows are Arrow record batches of one row: a sample has a thousand segments and a hundred thousand tokens, too many for a
Python object each.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import orjson
import pyarrow as pa

from storage.digests import digest_bytes
from storage.schemas import SAMPLES
from tasks.samples.origins import Ids, Origins
from tasks.samples.packing import Draft

_SEGMENTS = SAMPLES.arrow.field("segments").type
_DEPENDENCIES = SAMPLES.arrow.field("dependencies").type
Segment = tuple[str, str | None, str | None, str, int, int, int]
"""kind, root_id, chunk_id, doc_id, start, end, source_start: the fields of a segment in the schema's order."""


class Layout:
    """How the samples of a round are laid out: what stands at the start, what between segments, in which order."""

    def __init__(
        self,
        origins: Origins,
        *,
        bos: Sequence[int],
        separator: Sequence[int],
        target: int,
        grouped: bool,
        seed: int,
        fill: str,
    ) -> None:
        """``fill`` is the kind of the contexts that carry no dependency."""
        self._origins = origins
        self._bos = np.array(bos, dtype=np.int32)
        self._separator = np.array(separator, dtype=np.int32)
        self._target, self._grouped, self._seed, self._fill = target, grouped, seed, fill

    def row(self, draft: Draft, number: int) -> pa.RecordBatch:
        """The sample of a full draft, the ``number``-th of the round.

        A dependency's ``position`` is the index of its token in the sample, its ``distance`` the tokens from the end of
        the chunk's segment to it.
        """
        origins, chunks = self._origins, self._origins.chunks
        shuffle = random.Random(f"{self._seed}:{number}:{draft.roots[0].root}")
        order = self._order(draft, shuffle)
        cuts = _cuts(draft, order, origins)
        pieces: list[Ids] = [self._bos]
        segments: list[Segment] = []
        chunk_end: dict[int, tuple[int, str]] = {}
        root_start: dict[int, int] = {}
        end, gap = len(self._bos), len(self._separator)
        for place, (kind, row) in enumerate(order):
            if place:
                pieces.append(self._separator)
                end += gap
            start = end
            if kind == "root":
                root = origins.root(row)
                root_start[row] = start
                pieces.append(root.ids)
                end += len(root.ids)
                segments.append((kind, root.root_id, None, origins.doc_id(root.doc), start, end, 0))
            else:
                skipped = cuts.get(row, 0)
                name, ids = chunks.spelled(row)
                ids = ids[skipped:]
                pieces.append(ids)
                end += len(ids)
                chunk_end[row] = end, name
                segments.append((kind, None, name, origins.doc_id(origins.chunk_doc(row)), start, end, skipped))
        tokens = np.concatenate(pieces)
        assert len(tokens) == self._target, f"sample {number} has {len(tokens)} tokens, expected {self._target}"
        return sample_row(tokens, segments, self._dependencies(draft, root_start, chunk_end))

    def _order(self, draft: Draft, shuffle: random.Random) -> list[tuple[str, int]]:
        """(kind, row) of every segment in order: contexts shuffled together, then roots; or group by group."""
        if not self._grouped:
            contexts = [("positive", c) for c in draft.positives] + [(self._fill, c) for c in draft.negatives]
            shuffle.shuffle(contexts)
            return contexts + [("root", bundle.root) for bundle in draft.roots]
        order: list[tuple[str, int]] = []
        for bundle in draft.roots:
            group = [("positive", c) for c, users in draft.positives.items() if users[0][0] == bundle.root]
            group += [(self._fill, c) for c, root in draft.negatives.items() if root == bundle.root]
            shuffle.shuffle(group)
            order += [*group, ("root", bundle.root)]
        return order

    def _dependencies(
        self, draft: Draft, root_start: dict[int, int], chunk_end: dict[int, tuple[int, str]]
    ) -> list[tuple[object, ...]]:
        """The fields of each dependency in the schema's order, by position, then chunk."""
        found = []
        for chunk, users in draft.positives.items():
            end, name = chunk_end[chunk]
            for root, context in users:
                root_id, start = self._origins.root(root).root_id, root_start[root]
                for d in context.dependencies:
                    at = start + d.t
                    found.append(
                        (root_id, d.t, at, name, at - end, d.entropy_before, d.entropy_after, d.gain),
                    )
        return sorted(found, key=lambda row: (row[2], row[3]))


def _cuts(draft: Draft, order: Sequence[tuple[str, int]], origins: Origins) -> dict[int, int]:
    """Tokens cut from the front of the first segments that carry no dependency, until the target is met."""
    surplus, cuts = -draft.room, {}
    for kind, row in order:
        if surplus <= 0:
            break
        if kind != "root" and row in draft.negatives:
            cuts[row] = min(surplus, origins.chunk_size(row) - 1)
            surplus -= cuts[row]
    return cuts


def sample_row(ids: Ids, segments: Sequence[Segment], dependencies: Sequence[tuple[object, ...]]) -> pa.RecordBatch:
    """A row of ``samples``; its digest is that of the canonical JSON of ids and segments."""
    length = len(ids)
    columns = [
        pa.array([_digest(ids, segments)]),
        pa.ListArray.from_arrays(pa.array([0, length], pa.int32()), pa.array(ids)),
        pa.array([length], pa.int32()),
        _structs(_SEGMENTS, segments),
        _structs(_DEPENDENCIES, dependencies),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SAMPLES.arrow)


def _structs(kind: pa.ListType, rows: Sequence[tuple[object, ...]]) -> pa.ListArray:
    fields = list(kind.value_type)
    values = zip(*rows, strict=True) if rows else [()] * len(fields)
    arrays = [pa.array(list(column), field.type) for column, field in zip(values, fields, strict=True)]
    structs = pa.StructArray.from_arrays(arrays, fields=fields)
    return pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), structs)


def _digest(ids: Ids, segments: Sequence[Segment]) -> str:
    """SHA-256 of the canonical JSON of [ids, segments] (storage.digests), written faster: digests and numbers alone."""
    named = [
        {
            "chunk_id": chunk_id,
            "doc_id": doc_id,
            "end": end,
            "kind": kind,
            "root_id": root_id,
            "source_start": skipped,
            "start": start,
        }
        for kind, root_id, chunk_id, doc_id, start, end, skipped in segments
    ]
    return digest_bytes(orjson.dumps([np.ascontiguousarray(ids), named], option=orjson.OPT_SERIALIZE_NUMPY))
