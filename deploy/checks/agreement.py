"""Counts where the tables of a screened shard and the literal method agree, and where they do not.

Two computations of one number in fp32 differ in its last bits, so a decision is compared only where the number is not
at its limit. What lies within ``BAND`` of a threshold or of epsilon, and chunks whose cosines lie within ``TIE`` of
each other, are counted apart as near. Everything else has to be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.rounds.building import BuildConfig
from tests import literal_method
from tests.literal_method import Chunk, LiteralPolicy, Prediction, Root

BAND = 1e-4
"""Nats, or share of the entropy: closer than this to a limit, the last bits of a sum may decide."""
TIE = 3e-6
"""Cosines closer than this may change places: the product orders them in steps of 1e-6 of an fp32 product."""

Rows = Sequence[Mapping[str, Any]]
Encode = Callable[[list[str]], NDArray[np.float32]]


@dataclass
class Tally:
    """One kind of comparison; ``first`` says what differed first."""

    equal: int = 0
    near: int = 0
    different: int = 0
    first: str = ""

    def add(self, what: str, *, equal: bool, near: bool = False) -> None:
        """Counts one comparison of ``what``."""
        if near:
            self.near += 1
        elif equal:
            self.equal += 1
        else:
            self.different += 1
            self.first = self.first or what


@dataclass
class Agreement:
    """All comparisons so far, by kind, and the largest absolute difference of each number (nats).

    ``stopped``: somebody stopped the comparison before its end.
    """

    roots: int = 0
    stopped: bool = False
    tallies: dict[str, Tally] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)

    def add(self, kind: str, what: str, *, equal: bool, near: bool = False) -> None:
        """Counts one comparison."""
        self.tallies.setdefault(kind, Tally()).add(what, equal=equal, near=near)

    def close(self, kind: str, found: float, expected: float) -> bool:
        """Whether two numbers agree within ``BAND``; remembers the largest difference of its kind."""
        difference = abs(found - expected)
        self.largest[kind] = max(self.largest.get(kind, 0.0), difference)
        return difference <= BAND

    @property
    def holds(self) -> bool:
        """Whether something was compared and nothing differs."""
        return bool(self.tallies) and all(tally.different == 0 for tally in self.tallies.values())


@dataclass(frozen=True)
class Subject:
    """What the literal method looks at: the policy, the whole index by brute force, and the configuration.

    ``vectors`` are the stored ones, float32 [chunks, d]; ``encode`` embeds a shard's queries in one call, as the
    product does, since an embedder's last bits depend on the batch.
    """

    literal: LiteralPolicy
    chunks: Sequence[Chunk]
    vectors: NDArray[np.float32]
    encode: Encode
    config: BuildConfig


def passes(tables: Mapping[str, Rows], roots: Mapping[int, Root]) -> int:
    """Forward passes that the comparison of a shard takes: one per token, one per position and candidate."""
    return sum(len(root.ids) for root in roots.values()) + len(tables["verdicts"])


def compare(
    agreement: Agreement,
    subject: Subject,
    tables: Mapping[str, Rows],
    roots: Mapping[int, Root],
    advance: Callable[[float], None] = lambda amount: None,
) -> None:
    """Runs the literal method over a shard's roots and counts into ``agreement``; ``advance`` is told forward passes.

    ``tables``: the rows of screened, positions, candidates, verdicts and negatives. ``roots``: by row number.
    """
    screened = {row["root"]: row for row in tables["screened"]}
    selected: dict[int, dict[int, Mapping[str, Any]]] = {number: {} for number in roots}
    for row in tables["positions"]:
        selected[row["root"]][row["t"]] = row
    before: dict[tuple[int, int], Prediction] = {}
    for number, root in roots.items():
        predictions = subject.literal.root_predictions(root.ids)
        agreement.roots += 1
        agreement.add("root tokens", f"root {number}", equal=subject.literal.tokens(root.text) == root.ids)
        _compare_positions(agreement, subject, number, root, predictions, screened[number], selected[number])
        before |= {(number, t): prediction for t, prediction in predictions.items()}
        advance(len(root.ids))
    _compare_candidates(agreement, subject, tables, roots)
    _compare_verdicts(agreement, subject, tables, roots, before, advance)
    _compare_negatives(agreement, subject, tables, roots)


def _compare_positions(
    agreement: Agreement,
    subject: Subject,
    number: int,
    root: Root,
    predictions: Mapping[int, Prediction],
    screened: Mapping[str, Any],
    found: Mapping[int, Mapping[str, Any]],
) -> None:
    config = subject.config.entropy
    entropies = {t: prediction.entropy for t, prediction in predictions.items()}
    tau, chosen = literal_method.selected(entropies, config.alpha, config.min_context)
    close = agreement.close("threshold", screened["threshold"], tau)
    agreement.add("thresholds", f"root {number}: {screened['threshold']:.6f}, expected {tau:.6f}", equal=close)
    for t in sorted({*entropies, *found}):
        what, near = f"root {number} t {t}", t in entropies and abs(entropies[t] - tau) < BAND
        agreement.add("positions", what, equal=(t in found) == (t in chosen), near=near)
    for t, row in found.items():
        close = t in entropies and agreement.close("entropy before", row["entropy"], entropies[t])
        agreement.add("entropies before", f"root {number} t {t}", equal=close and row["token_id"] == root.ids[t])
        query = subject.literal.query(root.ids, t, config.query_radius)
        agreement.add("queries", f"root {number} t {t}", equal=row["query"] == query)


def _compare_candidates(
    agreement: Agreement, subject: Subject, tables: Mapping[str, Rows], roots: Mapping[int, Root]
) -> None:
    config = subject.config.retrieval
    found = _grouped(tables["candidates"], "root", "t")
    radius = subject.config.entropy.query_radius
    places = [(row["root"], row["t"]) for row in tables["positions"]]
    queries = subject.encode([subject.literal.query(roots[number].ids, t, radius) for number, t in places])
    for (number, t), query in zip(places, queries, strict=True):
        scores = literal_method.cosines(query, subject.vectors)
        wanted = literal_method.candidates(
            literal_method.neighbours(scores),
            subject.chunks,
            roots[number],
            top_k=config.top_k,
            looked_at=round(config.top_k * config.overfetch),
            length=config.copy_characters,
        )
        rows, reasons = found.get((number, t), []), dict(wanted)
        _compare_ranks(agreement, "candidates", f"root {number} t {t}", rows, list(reasons), scores)
        for row in rows:
            chunk = row["chunk"]
            if chunk not in reasons:
                reasons[chunk] = literal_method.exclusions(subject.chunks[chunk], roots[number], config.copy_characters)
            what = f"root {number} t {t} chunk {chunk}: {row['excluded']}, expected {sorted(reasons[chunk])}"
            agreement.add("exclusions", what, equal=_is_reason(row["excluded"], reasons[chunk]))


def _compare_verdicts(
    agreement: Agreement,
    subject: Subject,
    tables: Mapping[str, Rows],
    roots: Mapping[int, Root],
    before: Mapping[tuple[int, int], Prediction],
    advance: Callable[[float], None],
) -> None:
    epsilon = subject.config.verification.epsilon
    eligible = {(r["root"], r["t"], r["chunk"]) for r in tables["candidates"] if r["excluded"] is None}
    judged = [(row["root"], row["t"], row["chunk"]) for row in tables["verdicts"]]
    agreement.add("verdict rows", "not one per eligible candidate", equal=sorted(eligible) == sorted(judged))
    for row, (number, t, chunk) in zip(tables["verdicts"], judged, strict=True):
        root = roots[number]
        expected = subject.literal.verdict(subject.chunks[chunk].text, root.ids, t, before[number, t])
        close = agreement.close("entropy before", row["entropy_before"], expected.before.entropy)
        close &= agreement.close("entropy after", row["entropy_after"], expected.after.entropy)
        what = f"root {number} t {t} chunk {chunk}"
        agreement.add("entropies after", what, equal=close)
        agreement.close("nll", row["nll_before"], expected.before.nll)
        agreement.close("nll", row["nll_after"], expected.after.nll)
        same = row["kept"] == (expected.gain > epsilon) and row["literal"] == expected.literal
        what += f": gain {row['gain']:.6f}, expected {expected.gain:.6f}"
        agreement.add("verdicts", what, equal=same, near=abs(expected.gain - epsilon) < BAND)
        advance(1)


def _compare_negatives(
    agreement: Agreement, subject: Subject, tables: Mapping[str, Rows], roots: Mapping[int, Root]
) -> None:
    config = subject.config.negatives
    kept = ((row["root"], row["t"], row["chunk"]) for row in tables["verdicts"] if row["kept"])
    positives = list(literal_method.once_per_root(kept))
    found = _grouped(tables["negatives"], "root", "seed_chunk")
    for number, seed in sorted({*positives, *found}):
        what = f"root {number} positive {seed}"
        agreement.add("positives", what, equal=(number, seed) in found and (number, seed) in positives)
        scores = literal_method.cosines(subject.vectors[seed], subject.vectors)
        wanted = [chunk for chunk in literal_method.neighbours(scores) if chunk != seed][: config.depth]
        rows = found.get((number, seed), [])
        _compare_ranks(agreement, "neighbours", what, rows, wanted, scores)
        own = {chunk for root, chunk in positives if root == number}
        for row in rows:
            chunk, cosine = row["chunk"], float(scores[row["chunk"]])
            reasons = literal_method.negative_reasons(
                chunk,
                seed,
                cosine,
                own,
                subject.chunks,
                roots[number],
                length=config.copy_characters,
                copy_cosine=config.copy_cosine,
            )
            same = _is_reason(row["reason"], reasons) and row["kept"] == (not reasons)
            near = abs(cosine - config.copy_cosine) < TIE and reasons <= {"near-duplicate"}
            agreement.add("negatives", f"{what} chunk {chunk}: {row['reason']}", equal=same, near=near)


def _compare_ranks(
    agreement: Agreement, kind: str, what: str, rows: Rows, wanted: Sequence[int], scores: NDArray[np.float64]
) -> None:
    """Rank by rank, ties by number; chunks within ``TIE`` of the one that belongs there are near."""
    ordered = sorted(rows, key=lambda row: (-row["score"], row["chunk"]))
    for rank in range(max(len(rows), len(wanted))):
        expected = wanted[min(rank, len(wanted) - 1)] if wanted else None
        chunk = rows[min(rank, len(rows) - 1)]["chunk"] if rows else None
        if expected is None or chunk is None:
            agreement.add(kind, f"{what}: {len(rows)} rows, expected {len(wanted)}", equal=False)
            continue
        tied = abs(scores[chunk] - scores[expected]) <= TIE
        both = rank < len(rows) and rank < len(wanted)
        right = both and abs(rows[rank]["score"] - scores[chunk]) <= TIE and rows[rank] is ordered[rank]
        moved = tied and (not both or (right and chunk != expected))
        agreement.add(kind, f"{what} rank {rank}: {chunk}, expected {expected}", equal=right and tied, near=moved)


def _is_reason(found: str | None, reasons: Iterable[str]) -> bool:
    """Where several rules speak against a chunk, the product records one of them."""
    return found in set(reasons) if reasons else found is None


def _grouped(rows: Rows, *keys: str) -> dict[tuple[int, int], list[Mapping[str, Any]]]:
    found: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row[keys[0]], row[keys[1]]), []).append(row)
    return found
