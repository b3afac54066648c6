"""Samples of a version in the tokens of another tokenizer: the same segments of the same texts in the same order.

BOS, separators and tags are the other tokenizer's own. Lengths differ from sample to sample; nothing is cut or filled
up. A dependency moves to the token that holds the first character of the uncertain token (white space before it set
aside: tokenizers disagree about which word a blank belongs to); its entropies are those that the version's policy had
at its own token. [ours]
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from storage.digests import digest_json
from storage.errors import IntegrityError
from storage.schemas import Column, TableSchema
from tasks.audit.subject import Subject
from tasks.exporting.record import Counts, Row
from tasks.exporting.texts import SegmentText, waves
from tasks.exporting.tokenizers import OtherTokenizer
from tasks.provenance.token_origins import Offsets, Tokens

NOTE = (
    "Packed anew with another tokenizer: samples have different lengths and are not padded, entropies are those of the"
    " version's own policy, and what could not be carried over is listed in not-carried files."
)
_S, _I32, _F32 = pa.string(), pa.int32(), pa.float32()


def _struct(**fields: pa.DataType) -> pa.DataType:
    optional = ("root_id", "chunk_id", "char_start", "char_end", "part")
    return pa.struct([pa.field(name, kind, nullable=name in optional) for name, kind in fields.items()])


_SEGMENT = _struct(
    kind=_S, root_id=_S, chunk_id=_S, doc_id=_S, start=_I32, end=_I32, char_start=_I32, char_end=_I32, part=_I32
)
_DEPENDENCY = _struct(
    root_id=_S, t=_I32, char=_I32, position=_I32, chunk_id=_S, distance=_I32, entropy_before=_F32, entropy_after=_F32,
    gain=_F32,
)  # fmt: skip
REPACKED = TableSchema(
    "repacked",
    "Samples of a version in the tokens of another tokenizer.",
    ("sample_id",),
    (
        Column("sample_id", _S, "SHA-256 of the token ids and segments"),
        Column("source_sample", _S, "sample_id in the version"),
        Column("input_ids", pa.list_(_I32), "tokens of the other tokenizer"),
        Column("length", _I32, "tokens; differs from sample to sample"),
        Column(
            "segments",
            pa.list_(_SEGMENT),
            "spans in order: kind, origin, token range [start, end), characters [char_start, char_end) of the document"
            " (null for a tag, which has its part's number from 0)",
        ),
        Column(
            "dependencies",
            pa.list_(_DEPENDENCY),
            "which chunk helped which token: t in the version's tokens of the root, its character in the document, its"
            " place here, distance in tokens from the chunk's end; entropies as the version has them",
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A segment in its new place."""

    segment: Row
    text: SegmentText
    start: int
    end: int
    offsets: Offsets


def repacked_rows(
    subject: Subject,
    path: Path,
    own: Tokens,
    other: OtherTokenizer,
    counts: Counts,
    leave_out: Callable[[Row], None],
) -> Iterator[Row]:
    """The samples of a shard as rows of ``REPACKED``; ``leave_out`` gets a row for everything that is not carried.

    Raises ``InputError`` without the corpus and ``IntegrityError`` where it does not give the version's tokens.
    """
    separator = subject.setting("verification", "separator")
    if not isinstance(separator, str):
        raise IntegrityError(f"the configuration of version {subject.version[:12]} names no separator.")
    between = list(other.tokens.encode(separator)[0])
    for sample, texts in waves(subject, own, path):
        pieces = [texts.of(sample, number) for number in range(len(sample["segments"]))]
        yield _repack(sample, pieces, other, between, counts, leave_out)


def _repack(
    sample: Row,
    pieces: list[SegmentText],
    other: OtherTokenizer,
    between: list[int],
    counts: Counts,
    leave_out: Callable[[Row], None],
) -> Row:
    ids, placed = list(other.bos), list[_Placed]()
    for segment, piece in zip(sample["segments"], pieces, strict=True):
        found, offsets = other.tokens.encode(piece.text)
        counts.segments += 1
        if not found:
            counts.segments_empty += 1
            leave_out({"source_sample": sample["sample_id"], "what": "segment", "reason": "no-token", **segment})
            continue
        if placed:
            ids.extend(between)
        counts.unknown_tokens += sum(token == other.unknown for token in found)
        placed.append(_Placed(segment, piece, len(ids), len(ids) + len(found), offsets))
        ids.extend(found)
    segments = [_segment(place) for place in placed]
    return {
        "sample_id": digest_json([ids, segments]),
        "source_sample": sample["sample_id"],
        "input_ids": ids,
        "length": len(ids),
        "segments": segments,
        "dependencies": _carried(sample, placed, counts, leave_out),
    }


def _segment(place: _Placed) -> Row:
    segment, start = place.segment, place.text.start
    origin = {name: segment[name] for name in ("kind", "root_id", "chunk_id", "doc_id")}
    return {
        **origin,
        "start": place.start,
        "end": place.end,
        "char_start": start,
        "char_end": None if start is None else start + len(place.text.text),
        "part": segment["source_start"] if start is None else None,
    }


def _carried(sample: Row, placed: list[_Placed], counts: Counts, leave_out: Callable[[Row], None]) -> list[Row]:
    """The dependencies at their new tokens; of two that meet in one token the one with the larger gain stays."""
    roots = {place.segment["root_id"]: place for place in placed if place.segment["kind"] == "root"}
    ends = {place.segment["chunk_id"]: place.end for place in placed if place.segment["chunk_id"]}
    taken: dict[tuple[int, str], Row] = {}
    for dependency in sorted(sample["dependencies"], key=lambda d: (-d["gain"], d["t"], d["root_id"])):
        counts.dependencies += 1
        root, chunk_end = roots.get(dependency["root_id"]), ends.get(dependency["chunk_id"])
        target = _target(root, dependency["t"]) if root is not None else None
        reason = "no-token" if target is None else "no-chunk" if chunk_end is None else None
        if target is not None and (target[1], dependency["chunk_id"]) in taken:
            reason = "same-token"
        if reason is not None or target is None or chunk_end is None:
            counts.not_carried[reason or ""] = counts.not_carried.get(reason or "", 0) + 1
            row = {"source_sample": sample["sample_id"], "what": "dependency", "reason": reason}
            leave_out({**row, **dependency})
            continue
        char, position, inside = target
        counts.carried += 1
        counts.carried_inside += inside
        taken[position, dependency["chunk_id"]] = {
            "root_id": dependency["root_id"],
            "t": dependency["t"],
            "char": char,
            "position": position,
            "chunk_id": dependency["chunk_id"],
            "distance": position - chunk_end,
            **{name: dependency[name] for name in ("entropy_before", "entropy_after", "gain")},
        }
    return [taken[key] for key in sorted(taken)]


def _target(root: _Placed, t: int) -> tuple[int, int, bool] | None:
    """For token ``t`` of a root: its character in the document, its new place in the sample, and whether the new token
    begins with other text; None where no new token holds that character.
    """
    start, end = root.text.offsets[t]
    if start == end:
        return None
    char = _first(root.text.origin, start, end)
    assert root.text.start is not None
    shift = root.text.start - root.text.origin_start
    new = token_at(root.offsets, char - shift)
    if new is None:
        return None
    same = _first(root.text.text, *root.offsets[new]) == char - shift
    return root.text.origin_start + char, root.start + new, not same


def _first(text: str, start: int, end: int) -> int:
    """The first character of ``[start, end)`` that is no white space; ``start`` where all are."""
    found = text[start:end]
    return start + len(found) - len(found.lstrip()) if found.strip() else start


def token_at(offsets: Offsets, char: int) -> int | None:
    """The first token that holds a character, or None."""
    found = bisect_right(offsets, char, key=lambda span: span[1])
    return found if found < len(offsets) and offsets[found][0] <= char else None
