"""Dependencies of a round to look at, picked by rule and not by hand, with their texts.

    the one after which the token gained most likelihood · the same of those that copy nothing · an average one · one
    that deserves doubt

Picking is a stream over the verdicts that keeps a handful of rows; texts are read for those alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from storage.tables import RowReader
from storage.versions import table_refs
from tasks.audit.subject import Subject
from tasks.provenance.lookup import readable
from tasks.provenance.token_origins import Tokens
from tasks.reporting.histograms import dependencies

_KEY = ("root", "t", "chunk")
_COLUMNS = (*_KEY, "entropy_before", "entropy_after", "nll_before", "nll_after", "gain", "literal", "placebo_gain")
CLOSEST = 0.02
"""Gains this close to the mean are average; among them the least row is taken, so that the pick is one of many."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A kept verdict as its table has it, and the rule that picked it. Entropies and nll in nats."""

    rule: str
    root: int
    t: int
    chunk: int
    entropy_before: float
    entropy_after: float
    nll_before: float
    nll_after: float
    gain: float
    literal: bool
    placebo_gain: float | None


@dataclass(frozen=True, slots=True)
class Context:
    """A passage of the index; ``text`` is None when the corpus is not at hand."""

    title: str
    source: str
    text: str | None


@dataclass(frozen=True, slots=True)
class Example:
    """A dependency with its texts; None is what is not known in this home."""

    verdict: Verdict
    before: str | None
    """Text of the root before the token."""
    token: str | None
    after: str | None
    root_title: str
    context: Context
    rank: int | None
    """Of the passage among those found for the token, from 0."""
    score: float | None
    """Cosine of query and passage."""
    negative: Context | None
    negative_gain: float | None
    """Largest gain of the negative at a selected position; None when it was not verified."""
    place: tuple[int, int, int] | None
    """Number of a sample that holds it, token in the sample, distance in tokens; None when no sample does."""


def pick(subject: Subject, mean_gain: float) -> list[Verdict]:
    """Up to four kept verdicts of roots that are trained on, each of another root, in the order of the rules.

    Those that are dependencies of a sample come first; the average one has a hard negative where any has. Ties go by
    row, so a version has always the same examples.
    """
    with readable(subject):
        roots = subject.table("roots").filter(pl.col("role") == "train").select("root", "root_id")
        kept = subject.table("verdicts").filter(pl.col("kept")).select(_COLUMNS).join(roots, on="root", how="semi")
        seeds = subject.table("negatives").filter(pl.col("kept"))
        seeds = seeds.select("root", pl.col("seed_chunk").alias("chunk")).unique()
        placed = kept.join(_recorded(subject, roots), on=_KEY if subject.corpus else _KEY[:2], how="semi")
        loss = pl.col("nll_after") - pl.col("nll_before")
        answered = placed.join(seeds, on=["root", "chunk"], how="semi")
        better, worse = (loss.is_finite() & side for side in (loss < 0, loss > 0))  # a masked token's is infinite
        free = tuple(frame.filter(~pl.col("literal") & better) for frame in (placed, kept))
        average = ((pl.col("gain").cast(pl.Float64) - mean_gain) / CLOSEST).abs().floor()
        rules: tuple[tuple[str, tuple[pl.LazyFrame, ...], pl.Expr], ...] = (
            ("best", tuple(frame.filter(better) for frame in (placed, kept)), loss),
            ("free", free, loss),
            ("average", (answered, placed, kept), average),
            ("doubt", tuple(frame.filter(worse) for frame in (placed, kept)), -loss),
        )
        found: list[Verdict] = []
        for rule, frames, order in rules:
            taken = [verdict.root for verdict in found]
            for frame in frames:
                rest = frame.filter(~pl.col("root").is_in(taken)) if taken else frame
                rows = rest.with_columns(order.alias("order")).sort("order", *_KEY).head(1).collect(engine="streaming")
                if len(rows):
                    found.append(Verdict(rule=rule, **rows.drop("order").row(0, named=True)))
                    break
        return found


def _recorded(subject: Subject, roots: pl.LazyFrame) -> pl.LazyFrame:
    """The dependencies of samples by row; without the corpus, which numbers the chunks, their roots and positions."""
    rows = dependencies(subject.table("samples")).select("root_id", "t", "chunk_id").join(roots, on="root_id")
    if subject.corpus is None:
        return rows.select(_KEY[:2])
    chunks = pl.scan_parquet(subject.home / subject.corpus.chunks.uri, row_index_name="chunk")
    return rows.join(chunks.select(pl.col("chunk").cast(pl.Int32), "chunk_id"), on="chunk_id").select(_KEY)


def read_examples(subject: Subject, picked: list[Verdict], tokens: Tokens | None) -> list[Example]:
    """The texts of picked verdicts; without the corpus or the tokenizer what they would give is None."""
    if not picked:
        return []
    with readable(subject), _Texts(subject) as texts:
        evidence = _Evidence(subject, picked, texts)
        return [_example(verdict, evidence, texts, tokens) for verdict in picked]


def _example(verdict: Verdict, evidence: _Evidence, texts: _Texts, tokens: Tokens | None) -> Example:
    row = texts.root(verdict.root)
    ids: list[int] = row["input_ids"]
    parts = (ids[: verdict.t], ids[verdict.t : verdict.t + 1], ids[verdict.t + 1 :])
    before, token, after = (None, None, None) if tokens is None else map(tokens.decode, parts)
    rank, score = evidence.found.get((verdict.root, verdict.t, verdict.chunk), (None, None))
    negative = evidence.negatives.get((verdict.root, verdict.chunk))
    return Example(
        verdict=verdict,
        before=before,
        token=token,
        after=after,
        root_title=texts.title(row["doc"])[0],
        context=texts.context(verdict.chunk),
        rank=rank,
        score=score,
        negative=None if negative is None else texts.context(negative[0]),
        negative_gain=None if negative is None else negative[1],
        place=evidence.places.get((verdict.root, verdict.t, verdict.chunk)),
    )


class _Texts:
    """Roots of the version and passages and titles of its corpus, by row; titles are empty without the corpus."""

    def __init__(self, subject: Subject) -> None:
        home, corpus = subject.home.path, subject.corpus
        roots = table_refs(subject.version, subject.manifest, "roots")
        self._roots = RowReader(home, roots[0], kept_bytes=0)
        self._chunks = RowReader(home, corpus.chunks, kept_bytes=0) if corpus else None
        self._documents = RowReader(home, corpus.documents, ["doc_id", "source", "title"]) if corpus else None

    def __enter__(self) -> _Texts:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in (self._roots, self._chunks, self._documents):
            if reader is not None:
                reader.close()

    def root(self, row: int) -> dict[str, Any]:
        return self._roots[row]

    def title(self, doc: int) -> tuple[str, str]:
        """Title and source of a document."""
        if self._documents is None:
            return "", ""
        found = self._documents[doc]
        return found["title"] or found["source"], found["source"]

    def chunk_id(self, row: int) -> str | None:
        return None if self._chunks is None else str(self._chunks[row]["chunk_id"])

    def context(self, row: int) -> Context:
        if self._chunks is None:
            return Context("", "", None)
        found = self._chunks[row]
        return Context(*self.title(found["doc"]), found["text"])


class _Evidence:
    """Rank, score, hard negative and place in a sample of picked verdicts, each from one scan of its table."""

    def __init__(self, subject: Subject, picked: list[Verdict], texts: _Texts) -> None:
        roots = [verdict.root for verdict in picked]
        wanted = {(verdict.root, verdict.t, verdict.chunk) for verdict in picked}

        def rows(table: str, *columns: str) -> pl.DataFrame:
            frame = subject.table(table).filter(pl.col("root").is_in(roots))
            return frame.select(columns).collect(engine="streaming")

        self.found: dict[tuple[int, int, int], tuple[int | None, float | None]] = {}
        for root, t, chunk, rank, score in rows("candidates", *_KEY, "rank", "score").iter_rows():
            if (root, t, chunk) in wanted:
                self.found[root, t, chunk] = rank, score
        self.negatives: dict[tuple[int, int], tuple[int, float | None]] = {}
        columns = ("root", "seed_chunk", "chunk", "max_gain")
        kept = rows("negatives", *columns, "rank", "kept").filter(pl.col("kept")).sort("rank", "chunk")
        for root, seed, chunk, gain in kept.select(columns).iter_rows():
            self.negatives.setdefault((root, seed), (chunk, gain))
        self.places = self._places(subject, picked, texts)

    @staticmethod
    def _places(
        subject: Subject, picked: list[Verdict], texts: _Texts
    ) -> dict[tuple[int, int, int], tuple[int, int, int]]:
        ids = {verdict.root: str(texts.root(verdict.root)["root_id"]) for verdict in picked}
        rows_of = {
            (ids[verdict.root], verdict.t, texts.chunk_id(verdict.chunk)): (verdict.root, verdict.t, verdict.chunk)
            for verdict in picked
        }
        samples = subject.table("samples").select("dependencies").with_row_index("sample")
        rows = samples.explode("dependencies").drop_nulls("dependencies").unnest("dependencies")
        rows = rows.filter(pl.col("root_id").is_in(list(ids.values())))
        rows = rows.select("sample", "position", "distance", "root_id", "t", "chunk_id").sort("sample", "position")
        places: dict[tuple[int, int, int], tuple[int, int, int]] = {}
        for sample, position, distance, *key in rows.collect(engine="streaming").iter_rows():
            found = rows_of.get((key[0], key[1], key[2]))
            if found is not None:
                places.setdefault(found, (sample, position, distance))
        return places
