"""What must hold for the samples of any round, checked from the tables alone (docs/method.md 2.7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Row = Mapping[str, Any]
Rows = Sequence[Row]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Round:
    """The tables of a round and what its samples were asked to be.

    ``doc_ids[d]`` is the digest of document d, ``chunk_ids[c]`` the tokens of chunk c; ``screened`` the rows of the
    roots that were screened; ``fill`` the kind of segment that the rows of ``negatives`` become.
    """

    doc_ids: Sequence[str]
    chunks: Rows
    chunk_ids: Sequence[Sequence[int]]
    roots: Rows
    screened: range
    verdicts: Rows
    negatives: Rows
    samples: Rows
    unplaced: Rows
    target: int
    layout: str
    reuse_cap: int
    bos: tuple[int, ...]
    separator: tuple[int, ...]
    fill: str = "negative"

    @cached_property
    def kept(self) -> dict[Pair, list[Row]]:
        """Kept verdicts by (root, chunk)."""
        found: dict[Pair, list[Row]] = {}
        for row in self.verdicts:
            if row["kept"]:
                found.setdefault((row["root"], row["chunk"]), []).append(row)
        return found

    @cached_property
    def brought(self) -> dict[int, set[int]]:
        """The chunks that each root's positives may bring as negatives."""
        found: dict[int, set[int]] = {}
        for row in self.negatives:
            if row["kept"] and (row["root"], row["seed_chunk"]) in self.kept:
                found.setdefault(row["root"], set()).add(row["chunk"])
        return found

    @cached_property
    def chunk_of(self) -> dict[str, int]:
        """Row of each chunk id."""
        return {row["chunk_id"]: number for number, row in enumerate(self.chunks)}

    @cached_property
    def root_of(self) -> dict[str, int]:
        """Row of each root id."""
        return {row["root_id"]: number for number, row in enumerate(self.roots)}


def check_round(made: Round) -> set[Pair]:
    """Asserts every rule and returns the (root, positive) pairs that were placed."""
    placed: set[Pair] = set()
    uses: Counter[int] = Counter()
    rooted: Counter[int] = Counter()
    for sample in made.samples:
        _check_tokens(made, sample)
        pairs = _check_dependencies(made, sample)
        roots, contexts = _check_rules_within(made, sample, pairs)
        _check_order(made, sample, pairs)
        placed |= pairs
        uses.update(contexts)
        rooted.update(roots)
    assert max(uses.values(), default=0) <= made.reuse_cap
    assert max(rooted.values(), default=0) <= 1, "a root stands in two samples"
    assert len({sample["sample_id"] for sample in made.samples}) == len(made.samples)
    _check_nothing_is_lost(made, placed, set(rooted))
    return placed


def _origin(made: Round, segment: Row) -> tuple[Sequence[int], int]:
    """(tokens, document) of what a segment says it is."""
    if segment["kind"] == "root":
        assert segment["chunk_id"] is None
        row = made.roots[made.root_of[segment["root_id"]]]
        return row["input_ids"], row["doc"]
    assert segment["root_id"] is None
    chunk = made.chunk_of[segment["chunk_id"]]
    return made.chunk_ids[chunk], made.chunks[chunk]["doc"]


def _check_tokens(made: Round, sample: Row) -> None:
    """Exactly the target; BOS, segments and separators cover it; a segment is its origin's end, cut only in front."""
    ids, end = sample["input_ids"], len(made.bos)
    assert len(ids) == sample["length"] == made.target
    assert tuple(ids[:end]) == made.bos
    cut = []
    for place, segment in enumerate(sample["segments"]):
        separator = made.separator if place else ()
        assert tuple(ids[end : segment["start"]]) == separator
        assert segment["start"] == end + len(separator)
        origin, doc = _origin(made, segment)
        assert segment["doc_id"] == made.doc_ids[doc]
        assert 0 <= segment["source_start"] < len(origin)
        assert list(ids[segment["start"] : segment["end"]]) == list(origin[segment["source_start"] :])
        if segment["kind"] == made.fill:
            cut.append((segment["source_start"], segment["end"] - segment["start"]))
        else:
            assert segment["source_start"] == 0, "a root or a positive was cut"
        end = segment["end"]
    assert end == len(ids)
    last_cut = max((place for place, (skipped, _) in enumerate(cut) if skipped), default=0)
    assert all(left == 1 for _, left in cut[:last_cut]), "the first ones are cut before the next one loses a token"


def _check_dependencies(made: Round, sample: Row) -> set[Pair]:
    """Every dependency is a kept verdict and points at the token it says; none of a placed pair is left out."""
    starts = {s["root_id"]: s["start"] for s in sample["segments"] if s["kind"] == "root"}
    ends = {s["chunk_id"]: s["end"] for s in sample["segments"] if s["kind"] == "positive"}
    found: dict[Pair, list[int]] = {}
    for dependency in sample["dependencies"]:
        root, chunk, t = made.root_of[dependency["root_id"]], made.chunk_of[dependency["chunk_id"]], dependency["t"]
        assert dependency["position"] == starts[dependency["root_id"]] + t
        assert sample["input_ids"][dependency["position"]] == made.roots[root]["input_ids"][t]
        assert dependency["distance"] == dependency["position"] - ends[dependency["chunk_id"]] > 0
        verdict = next(row for row in made.kept[root, chunk] if row["t"] == t)
        assert all(dependency[name] == verdict[name] for name in ("entropy_before", "entropy_after", "gain"))
        found.setdefault((root, chunk), []).append(t)
    for pair, positions in found.items():
        assert sorted(positions) == sorted(row["t"] for row in made.kept[pair])
    assert {made.root_of[name] for name in starts} == {root for root, _ in found}, "a root without a dependency"
    assert {made.chunk_of[name] for name in ends} == {chunk for _, chunk in found}, "a positive without a dependency"
    return set(found)


def _check_rules_within(made: Round, sample: Row, pairs: set[Pair]) -> tuple[list[int], list[int]]:
    """No chunk twice, none from its roots' documents, no negative that is a positive of one of its roots."""
    roots = [made.root_of[s["root_id"]] for s in sample["segments"] if s["kind"] == "root"]
    contexts = [made.chunk_of[s["chunk_id"]] for s in sample["segments"] if s["kind"] != "root"]
    negatives = [made.chunk_of[s["chunk_id"]] for s in sample["segments"] if s["kind"] == made.fill]
    assert {s["kind"] for s in sample["segments"]} <= {"root", "positive", made.fill}
    assert len(set(contexts)) == len(contexts)
    assert not {made.chunks[chunk]["doc"] for chunk in contexts} & {made.roots[root]["doc"] for root in roots}
    assert not {chunk for root, chunk in made.kept if root in roots} & set(negatives)
    assert set(negatives) <= {chunk for root in roots for chunk in made.brought.get(root, ())}
    return roots, contexts


def _check_order(made: Round, sample: Row, pairs: set[Pair]) -> None:
    """global: roots after all contexts. grouped: every root directly behind contexts that are its own."""
    segments = sample["segments"]
    assert segments[-1]["kind"] == "root"
    if made.layout == "global":
        first = next(place for place, segment in enumerate(segments) if segment["kind"] == "root")
        assert all(segment["kind"] == "root" for segment in segments[first:])
        return
    group: list[Row] = []
    for segment in segments:
        if segment["kind"] != "root":
            group.append(segment)
            continue
        root = made.root_of[segment["root_id"]]
        for context in group:
            chunk = made.chunk_of[context["chunk_id"]]
            own = made.brought.get(root, set()) if context["kind"] == made.fill else {c for r, c in pairs if r == root}
            assert chunk in own, "a context stands in another root's group"
        group = []


def _check_nothing_is_lost(made: Round, placed: set[Pair], rooted: set[int]) -> None:
    """Every root and every kept pair is in a sample or reported with its tokens, and not both."""
    left_roots = {row["root"]: row for row in made.unplaced if row["kind"] == "root"}
    left_pairs = {(row["root"], row["chunk"]): row for row in made.unplaced if row["kind"] == "positive"}
    assert len(left_roots) + len(left_pairs) == len(made.unplaced)
    assert set(left_roots) | rooted == set(made.screened)
    assert not set(left_roots) & rooted
    assert set(left_pairs) | placed == set(made.kept), "a positive is neither in a sample nor reported"
    assert not set(left_pairs) & placed
    assert all(row["reason"] for row in made.unplaced)
    assert all(row["tokens"] == len(made.roots[root]["input_ids"]) for root, row in left_roots.items())
    assert all(row["tokens"] == len(made.chunk_ids[chunk]) for (_, chunk), row in left_pairs.items())
    helped = {root for root, _ in made.kept}
    assert {root for root, row in left_roots.items() if row["reason"] == "no-positive"} == set(made.screened) - helped
