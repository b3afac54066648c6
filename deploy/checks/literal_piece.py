"""What a trace should say of one token, put together from ``LiteralTrace``: plain filters over lists of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deploy.checks.literal_trace import AROUND, CONTEXT, NEAR, LiteralTrace, Row

VERDICT = ("nll_before", "nll_after", "literal", "placebo_gain", "kept", "reason")
CHANGE = ("entropy_before", "entropy_after", "gain")


def expected_trace(read: LiteralTrace, token: int) -> Row:
    """The trace of token ``token`` of the sample that is open, in the form of ``policylong trace --json``."""
    manifest, sample = read.manifest, read.sample
    same = ("round", "recipe", "corpus", "embedder", "relation", "lag", "config_digest", "code_versions")
    screens = any(entry["table"] == "positions" for entry in manifest["files"].values())
    return {name: manifest[name] for name in same} | {
        "version": read.version,
        "row": read.row,
        "sample_id": sample["sample_id"],
        "tokens": len(sample["input_ids"]),
        "span": [token, token + 1],
        "segments": [],
        "dependencies": [],
        "pieces": [_piece(read, token)],
        "policies": read.policies,
        "unknown": [] if screens else [f"recipe {manifest['recipe']} screens no positions: there are no entropies"],
    }


def _piece(read: LiteralTrace, token: int) -> Row:
    number = read.segment_at(token)
    nothing: Row = {"links": [], "root": None, "seeds": [], "neighbours": []}
    if number is None:
        first = read.sample["segments"][0]["start"] if read.sample["segments"] else token + 1
        text = read.vocabulary.text([read.sample["input_ids"][token]])
        empty = {"origin": None, "before": None, "after": None, "characters": None}
        kind = "bos" if token < first else "separator"
        return {"start": token, "end": token + 1, "kind": kind, "text": text} | empty | nothing
    segment = read.sample["segments"][number]
    shown = ("text", "before", "after", "characters")
    piece = {"start": token, "end": token + 1, "kind": segment["kind"], "origin": _origin(read, number)} | nothing
    piece |= dict(zip(shown, _text(read, number, token, AROUND), strict=True))
    if segment["chunk_id"]:
        piece["links"] = list(_asked_for(read, segment["chunk_id"]))
        piece["seeds"] = list(_seeds(read, segment["chunk_id"]))
    elif segment["root_id"]:
        piece["links"] = _in_order(
            _link(read, d["root_id"], d["t"], d["chunk_id"], context=True)
            for d in read.sample["dependencies"]
            if d["root_id"] == segment["root_id"] and d["position"] == token
        )
        piece["root"] = _root(read, segment, token)
    elif segment["kind"] == "document":
        piece["neighbours"] = list(_neighbours(read, segment["doc_id"]))
    return piece


def _text(read: LiteralTrace, number: int, token: int, reach: int) -> tuple[Any, ...]:
    """Text of a token, of the segment before and after it, and the token's characters in the document."""
    segment, found = read.sample["segments"][number], read.text(number)
    if found is not None:
        place = token - segment["start"]
        return *found.around(place, place + 1, reach), list(found.characters(place, place + 1))
    ids, start, end = read.sample["input_ids"], segment["start"], segment["end"]
    before = read.vocabulary.text(ids[max(start, token - reach) : token])[-reach:]
    after = read.vocabulary.text(ids[token + 1 : min(end, token + 1 + reach)])[:reach]
    return read.vocabulary.text([ids[token]]), before, after, None


def _origin(read: LiteralTrace, number: int) -> Row:
    segment, place = read.sample["segments"][number], read.place(number)
    document = read.documents[segment["doc_id"]]
    own = "chunk_id" if segment["chunk_id"] else "root_id"
    return segment | {
        "segment": number,
        "source": document["source"],
        "title": document["title"],
        "part": document["part"],
        "char_start": place[1] if place else None,
        "char_end": place[2] if place else None,
        "helps": len([d for d in read.sample["dependencies"] if d[own] == segment[own]]),
    }


def _asked_for(read: LiteralTrace, chunk_id: str) -> Iterator[Row]:
    """Every position of the sample's roots whose candidates include the chunk; a dependency is one of them."""
    chunk = read.chunks[chunk_id]["number"]
    asked = {(read.root_ids[c["root"]], c["t"]) for c in read.of_roots["candidates"] if c["chunk"] == chunk}
    asked |= {(d["root_id"], d["t"]) for d in read.sample["dependencies"] if d["chunk_id"] == chunk_id}
    here = {s["root_id"] for s in read.sample["segments"] if s["root_id"] and not s["chunk_id"]}
    yield from _in_order(_link(read, root, t, chunk_id, context=False) for root, t in asked if root in here)


def _in_order(links: Iterator[Row]) -> list[Row]:
    return sorted(links, key=lambda link: (not link["helped"], link["position"] or 0, link["chunk_start"] or 0))


def _link(read: LiteralTrace, root_id: str, t: int, chunk_id: str, *, context: bool) -> Row:
    root, chunk = read.roots[root_id]["number"], read.chunks[chunk_id]["number"]
    position = _only(p for p in read.of_roots["positions"] if (p["root"], p["t"]) == (root, t))
    key = (root, t, chunk)
    candidate = _only(c for c in read.of_roots["candidates"] if (c["root"], c["t"], c["chunk"]) == key)
    verdict = _only(v for v in read.of_roots["verdicts"] if (v["root"], v["t"], v["chunk"]) == key)
    recorded = _only(
        d for d in read.sample["dependencies"] if (d["root_id"], d["t"], d["chunk_id"]) == (root_id, t, chunk_id)
    )
    segments = list(enumerate(read.sample["segments"]))
    asks, asking = next((n, s) for n, s in segments if s["root_id"] == root_id and not s["chunk_id"])
    place = asking["start"] + t - asking["source_start"]
    inside = asking["start"] <= place < asking["end"]
    token, before, after, _ = _text(read, asks, place, NEAR) if inside else (None, None, None, None)
    number, segment = next(((n, s) for n, s in segments if s["chunk_id"] == chunk_id), (None, None))
    head = None
    if context and number is not None and segment is not None:
        found = read.text(number)
        assert found is not None
        first, last = found.characters(0, segment["end"] - segment["start"])
        head = found.document[first:last][:CONTEXT]
    return {
        "root_id": root_id,
        "t": t,
        "position": place if inside else None,
        "chunk_id": chunk_id,
        "chunk_start": segment["start"] if segment else None,
        "chunk_end": segment["end"] if segment else None,
        "helped": bool(recorded),
        "distance": recorded.get("distance"),
        "token": token,
        "before": before,
        "after": after,
        "context": head,
        "query": position["query"],
        "entropy": position["entropy"],
        "threshold": position["threshold"],
        "rank": candidate["rank"],
        "score": candidate["score"],
        "excluded": candidate["excluded"],
        **{name: verdict.get(name) for name in (*VERDICT, *CHANGE)},
    }


def _root(read: LiteralTrace, segment: Row, token: int) -> Row:
    root, t = read.roots[segment["root_id"]], token - segment["start"] + segment["source_start"]
    screened = _only(s for s in read.of_roots["screened"] if s["root"] == root["number"])
    asked = [p for p in read.of_roots["positions"] if (p["root"], p["t"]) == (root["number"], t)]
    found = [c for c in read.of_roots["candidates"] if (c["root"], c["t"]) == (root["number"], t)]
    judged = [v for v in read.of_roots["verdicts"] if (v["root"], v["t"]) == (root["number"], t)]
    text = read.vocabulary.text([root["input_ids"][t]])
    positions = [
        {name: position[name] for name in ("entropy", "nll", "threshold", "query")}
        | {"t": t, "position": token, "token": text, "candidates": len(found)}
        | {"excluded": len([c for c in found if c["excluded"]]), "kept": len([v for v in judged if v["kept"]])}
        for position in asked
    ]
    statistics = {name: screened.get(name) for name in ("mean", "std", "threshold", "selected")}
    return {"role": root["role"], "first_t": t, "stop_t": t + 1, **statistics, "positions": positions}


def _seeds(read: LiteralTrace, chunk_id: str) -> Iterator[Row]:
    """Kept rows of ``negatives`` for a chunk, by rank, root and seed."""
    chunk = read.chunks[chunk_id]["number"]
    own = [n for n in read.of_roots["negatives"] if n["chunk"] == chunk and n["kept"]]
    for row in sorted(own, key=lambda n: (n["rank"], n["root"], n["seed_chunk"])):
        seed = read.seed_ids[row["seed_chunk"]]
        segment: Row = next((s for s in read.sample["segments"] if s["chunk_id"] == seed), {})
        yield {
            "root_id": read.root_ids[row["root"]],
            "chunk_id": seed,
            "start": segment.get("start"),
            "end": segment.get("end"),
            **{name: row[name] for name in ("rank", "score", "max_gain")},
        }


def _neighbours(read: LiteralTrace, doc_id: str) -> Iterator[Row]:
    """Documents of the sample that have this one as their neighbour."""
    names = {document["number"]: name for name, document in read.documents.items()}
    rows = [n for n in read.neighbours if n["neighbour"] == read.documents[doc_id]["number"]]
    for row in sorted(rows, key=lambda n: (n["doc"], n["rank"])):
        yield {"doc_id": names[row["doc"]], "rank": row["rank"], "score": row["score"]}


def _only(rows: Iterator[Row]) -> Row:
    """The one row that fits, or an empty one; raises ``ValueError`` when two fit."""
    found = list(rows)
    if len(found) > 1:
        raise ValueError(f"two rows fit: {found[:2]}")
    return found[0] if found else {}
