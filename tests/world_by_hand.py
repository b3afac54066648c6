"""A world and its rounds, written by hand: every row of every table, small enough to be checked by eye.

Six documents of forty words. Words are tokens (``w7`` is token 8, the separator is token 0). Round k screens the probe
root and two train roots; every position has three candidates, one excluded, and of the two verdicts one is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from storage.digests import digest_json, digest_text

Row = dict[str, Any]
Shards = dict[str, list[list[Row]]]
Change = Callable[[Shards], None]

SEPARATOR = "\n\n"
WORDS = 60
DOCUMENT_WORDS = 40
CHUNK_WORDS = 10
ROOT_WORDS = 20
POSITIONS = (5, 11)
PARTS = ("screen", "screen", "screen", "screen", "probe", "heldout")
CONFIG = {
    "entropy": {"alpha": 2.0},
    "verification": {"epsilon": 0.4, "separator": SEPARATOR},
    "campaign": {"rounds": 2},
}


def tokens(text: str) -> list[int]:
    """The world's tokenizer."""
    return [0] if text == SEPARATOR else [int(word[1:]) + 1 for word in text.split(" ")]


def documents() -> list[Row]:
    rows = []
    for number, part in enumerate(PARTS):
        text = " ".join(f"w{(17 * number + 7 * place + number * place) % WORDS}" for place in range(DOCUMENT_WORDS))
        rows.append(
            {
                "doc_id": digest_text(text),
                "text": text,
                "source": f"world#{number}",
                "title": f"document {number}",
                "group": f"group {number}",
                "part": part,
                "metadata": "{}",
            }
        )
    return rows


def _span(text: str, first: int, words: int) -> tuple[int, int]:
    split = text.split(" ")
    start = len(" ".join(split[:first])) + (1 if first else 0)
    return start, start + len(" ".join(split[first : first + words]))


def chunks() -> list[Row]:
    """Four chunks of each screened document: chunk 4 * doc + ordinal."""
    rows = []
    for doc, row in enumerate(documents()):
        for ordinal in range(DOCUMENT_WORDS // CHUNK_WORDS if row["part"] == "screen" else 0):
            start, end = _span(row["text"], ordinal * CHUNK_WORDS, CHUNK_WORDS)
            rows.append(
                {
                    "chunk_id": digest_json([row["doc_id"], start, end]),
                    "doc": doc,
                    "ordinal": ordinal,
                    "char_start": start,
                    "char_end": end,
                    "tokens": CHUNK_WORDS,
                    "text": row["text"][start:end],
                }
            )
    return rows


def roots() -> list[Row]:
    """The probe root (document 4), then one root of each screened document: round k trains on rows 2k - 1 and 2k."""
    rows = []
    for doc in (4, 0, 1, 2, 3):
        row = documents()[doc]
        start, end = _span(row["text"], 0, ROOT_WORDS)
        ids = tokens(row["text"][start:end])
        rows.append(
            {
                "root_id": digest_json([row["doc_id"], start, end, ids]),
                "doc": doc,
                "role": row["part"] if row["part"] == "probe" else "train",
                "char_start": start,
                "char_end": end,
                "input_ids": ids,
            }
        )
    return rows


def round_tables(number: int) -> Shards:
    """Every table of round ``number`` (1 or 2) as shards of rows; the second shard holds the last root."""
    own = [0, 2 * number - 1, 2 * number]
    shards = [own[:2], own[2:]]
    tables: Shards = {"roots": [roots()], "unplaced": [[]]}
    for name in ("screened", "positions", "candidates", "verdicts", "negatives"):
        tables[name] = [[row for root in shard for row in _rows_of(name, root)] for shard in shards]
    tables["samples"] = [[_sample(own[1:])]]
    return tables


def _rows_of(table: str, root: int) -> Iterator[Row]:
    statistics = {"mean": 1.0, "std": 0.5, "threshold": 2.0}
    ids = roots()[root]["input_ids"]
    if table == "screened":
        yield {"root": root, "tokens": len(ids), "scored": len(ids) - 1, "selected": len(POSITIONS), **statistics}
    for t in POSITIONS if table in ("positions", "candidates", "verdicts") else ():
        kept, dropped, excluded = _near(root, t)
        if table == "positions":
            yield {
                "root": root,
                "t": t,
                "token_id": ids[t],
                "entropy": 3.0,
                "nll": 2.5,
                "query": f"around {t}",
                **statistics,
            }
        elif table == "candidates":
            for rank, (chunk, reason) in enumerate(((kept, None), (excluded, "root-document"), (dropped, None))):
                yield {
                    "root": root,
                    "t": t,
                    "chunk": chunk,
                    "rank": rank,
                    "score": 0.9 - 0.1 * rank,
                    "excluded": reason,
                }
        else:
            yield _verdict(root, t, kept, 0.75)
            yield _verdict(root, t, dropped, 2.7)
    if table == "negatives":
        for t in POSITIONS:
            seed, dropped, _ = _near(root, t)
            twin = 4 * ((dropped // 4 + 1) % 4) + 3
            for rank, (chunk, reason) in enumerate(((_negative(root, t), None), (twin, "near-duplicate"))):
                row = {"root": root, "seed_chunk": seed, "chunk": chunk, "rank": rank, "score": 0.8, "max_gain": None}
                yield {**row, "kept": reason is None, "reason": reason}


def _near(root: int, t: int) -> tuple[int, int, int]:
    """The kept, the dropped and the excluded candidate of a position; the first two from other documents."""
    other = (roots()[root]["doc"] + 2) % 4
    place = POSITIONS.index(t)
    own = min(roots()[root]["doc"], 3)
    return 4 * other + place, 4 * ((other + 1) % 4 if root == 0 else other) + 2, 4 * own


def _negative(root: int, t: int) -> int:
    return 4 * ((roots()[root]["doc"] + 2) % 4) + 2 + POSITIONS.index(t)


def _verdict(root: int, t: int, chunk: int, after: float) -> Row:
    gain = (3.0 - after) / 3.0
    return {
        "root": root,
        "t": t,
        "chunk": chunk,
        "entropy_before": 3.0,
        "entropy_after": after,
        "nll_before": 2.5,
        "nll_after": 1.0,
        "gain": gain,
        "literal": False,
        "placebo_gain": 0.05 if t == POSITIONS[0] else None,
        "kept": gain > 0.4,
        "reason": None if gain > 0.4 else "gain-too-small",
    }


def _sample(train: list[int]) -> Row:
    """Positives and negatives of all roots first, the roots last, a separator between spans."""
    table, docs, passages = roots(), documents(), chunks()
    ids: list[int] = []
    segments: list[Row] = []

    def add(kind: str, root: int, chunk: int | None, span: list[int], doc: int) -> None:
        if ids:
            ids.extend(tokens(SEPARATOR))
        place = {"start": len(ids), "end": len(ids) + len(span), "source_start": 0}
        chunk_id = None if chunk is None else passages[chunk]["chunk_id"]
        origin = {
            "root_id": None if chunk_id else table[root]["root_id"],
            "chunk_id": chunk_id,
            "doc_id": docs[doc]["doc_id"],
        }
        segments.append({"kind": kind, **origin, **place})
        ids.extend(span)

    for root in train:
        for t in POSITIONS:
            for kind, chunk in (("positive", _near(root, t)[0]), ("negative", _negative(root, t))):
                add(kind, root, chunk, tokens(passages[chunk]["text"]), passages[chunk]["doc"])
    for root in train:
        add("root", root, None, table[root]["input_ids"], table[root]["doc"])
    place_of_root = {s["root_id"]: s["start"] for s in segments if s["kind"] == "root"}
    end_of_chunk = {s["chunk_id"]: s["end"] for s in segments if s["kind"] == "positive"}
    dependencies = []
    for root in train:
        for t in POSITIONS:
            chunk_id, position = passages[_near(root, t)[0]]["chunk_id"], place_of_root[table[root]["root_id"]] + t
            entropies = {"entropy_before": 3.0, "entropy_after": 0.75, "gain": 0.75}
            pair = {"root_id": table[root]["root_id"], "t": t, "position": position, "chunk_id": chunk_id}
            dependencies.append({**pair, "distance": position - end_of_chunk[chunk_id], **entropies})
    return {
        "sample_id": digest_json([ids, segments]),
        "input_ids": ids,
        "length": len(ids),
        "segments": segments,
        "dependencies": dependencies,
    }
