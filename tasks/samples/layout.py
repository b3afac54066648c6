"""A full draft laid out as a row of ``samples``: order, cuts, absolute token positions and dependencies.

Rows are Arrow record batches of one row: a sample has a thousand segments and a hundred thousand tokens, too many for a
Python object each.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from storage.digests import digest_bytes
from storage.schemas import SAMPLES
from tasks.samples.origins import Ids, Origins
from tasks.samples.packing import Draft

_SEGMENTS = SAMPLES.arrow.field("segments").type
_DEPENDENCIES = SAMPLES.arrow.field("dependencies").type
Columns = Sequence[Sequence[Any]]
"""Structs as a column for each field, in the schema's order; nothing for no structs."""
Places = dict[int, int]
"""A number for some chunks or roots, by row."""


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
        origins, doc_ids = self._origins, self._origins.doc_ids
        groups = self._groups(draft, random.Random(f"{self._seed}:{number}:{draft.roots[0].root}"))
        cuts = _cuts(draft, chain.from_iterable(chunks for chunks, _ in groups), origins.chunk_sizes)
        spans: list[tuple[str, str | None, str | None, str, int, Ids]] = []
        root_at: Places = {}
        chunk_at: Places = {}
        for chunks, roots in groups:
            for chunk in chunks:
                chunk_at[chunk] = len(spans)
                kind = "positive" if chunk in draft.positives else self._fill
                name, ids = origins.chunks.spelled(chunk)
                skipped = cuts.get(chunk, 0)
                spans.append((kind, None, name, doc_ids[origins.chunk_docs[chunk]], skipped, ids[skipped:]))
            for row in roots:
                root_at[row] = len(spans)
                root = origins.root(row)
                spans.append(("root", root.root_id, None, doc_ids[root.doc], 0, root.ids))
        kinds, root_ids, chunk_ids, docs, source_starts, pieces = zip(*spans, strict=True)
        sizes, gap = np.array([len(ids) for ids in pieces], np.int32), len(self._separator)
        ends = len(self._bos) - gap + np.cumsum(sizes + gap, dtype=np.int32)
        segments = (kinds, root_ids, chunk_ids, docs, (ends - sizes).tolist(), ends.tolist(), source_starts)
        parted = [self._separator] * (2 * len(pieces))
        parted[0], parted[1::2] = self._bos, pieces
        tokens = np.concatenate(parted)
        assert len(tokens) == self._target, f"sample {number} has {len(tokens)} tokens, expected {self._target}"
        return sample_row(tokens, segments, _dependencies(draft, segments, root_at, chunk_at))

    def _groups(self, draft: Draft, shuffle: random.Random) -> list[tuple[list[int], list[int]]]:
        """Rows of chunks and of the roots behind them: all in one group, or a group for every root."""
        if not self._grouped:
            groups = [([*draft.positives, *draft.negatives], [bundle.root for bundle in draft.roots])]
        else:
            own: dict[int, list[int]] = {bundle.root: [] for bundle in draft.roots}
            for chunk, users in draft.positives.items():
                own[users[0].root].append(chunk)
            for chunk, root in draft.negatives.items():
                own[root].append(chunk)
            groups = [(chunks, [root]) for root, chunks in own.items()]
        for chunks, _ in groups:
            shuffle.shuffle(chunks)
        return groups


def _dependencies(draft: Draft, segments: Columns, root_at: Places, chunk_at: Places) -> Columns:
    """The dependencies of a draft whose roots and chunks are these segments, by position, then chunk."""
    _, root_ids, chunk_ids, _, starts, ends, _ = segments
    columns = {bundle.root: bundle.dependencies for bundle in draft.roots}
    found: list[tuple[Any, ...]] = []
    for chunk, users in draft.positives.items():
        name, end = chunk_ids[chunk_at[chunk]], ends[chunk_at[chunk]]
        for context in users:
            root_id, start = root_ids[root_at[context.root]], starts[root_at[context.root]]
            t, before, after, gain = columns[context.root]
            for row in context.rows:
                at = start + t[row]
                found.append((root_id, t[row], at, name, at - end, before[row], after[row], gain[row]))
    found.sort(key=itemgetter(2, 3))
    return tuple(zip(*found, strict=True))


def _cuts(draft: Draft, order: Iterable[int], sizes: Mapping[int, int]) -> Places:
    """Tokens cut from the front of the first chunks that carry no dependency, until the target is met."""
    surplus, cuts = -draft.room, {}
    for chunk in order:
        if surplus <= 0:
            break
        if chunk in draft.negatives:
            cuts[chunk] = min(surplus, sizes[chunk] - 1)
            surplus -= cuts[chunk]
    return cuts


def sample_row(ids: Ids, segments: Columns, dependencies: Columns) -> pa.RecordBatch:
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


def _structs(kind: pa.ListType, columns: Columns) -> pa.ListArray:
    fields = list(kind.value_type)
    arrays = [pa.array(c, field.type) for c, field in zip(columns or [()] * len(fields), fields, strict=True)]
    structs = pa.StructArray.from_arrays(arrays, fields=fields)
    return pa.ListArray.from_arrays(pa.array([0, len(structs)], pa.int32()), structs)


def _digest(ids: Ids, segments: Columns) -> str:
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
        for kind, root_id, chunk_id, doc_id, start, end, skipped in zip(*segments, strict=True)
    ]
    return digest_bytes(orjson.dumps([np.ascontiguousarray(ids), named], option=orjson.OPT_SERIALIZE_NUMPY))
