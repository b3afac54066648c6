"""Audit of samples made of whole documents, of their parts, and of documents with their neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from storage.findings import Finding, not_checkable
from tasks.audit.subject import FILE, SPAN, Subject, duplicates, judge, missing
from tasks.corpus.splitting import unit_hash

PLACE = ("sample_id", "doc_id", "start")


def audit_documents(subject: Subject, spans: pl.LazyFrame) -> Iterator[Finding]:
    """Where document spans and tags come from, and the rules that hold among them; needs the corpus."""
    documents, tags = (spans.filter(pl.col("kind") == kind) for kind in ("document", "tag"))
    strange = missing(spans, subject.screened_documents(), ["doc_id"])
    yield judge("every document span is of a screened document", strange, SPAN)
    named = spans.filter(pl.col("root_id").is_not_null() | pl.col("chunk_id").is_not_null())
    yield judge("no document span names a root or a chunk", named, SPAN)
    if subject.has("neighbours"):
        twice = duplicates(documents, ["sample_id", "doc_id"])
        yield judge("no document stands twice in a sample", twice, ("sample_id", "doc_id", "times"))
        yield from _followers(subject, documents)
    else:
        again = _overlapping(documents, ["doc_id"], "source_start")
        yield judge("no token of a document stands twice in the round", again, PLACE)
    disorder = _overlapping(documents, ["sample_id", "doc_id"], "start")
    yield judge("parts of a document keep their order in a sample", disorder, PLACE)
    yield from _tags(spans, tags)


def _overlapping(documents: pl.LazyFrame, within: list[str], by: str) -> pl.LazyFrame:
    """Spans whose tokens do not all lie behind those of the span before it, in the order of ``by``."""
    stop = pl.col("source_start") + pl.col("end") - pl.col("start")
    ordered = documents.sort(*within, by, "sample_id", "start").with_columns(stop.alias("stop"))
    before = pl.col("stop").cum_max().shift(1).over(within)
    return ordered.filter(pl.col("source_start") < before)


def _tags(spans: pl.LazyFrame, tags: pl.LazyFrame) -> Iterator[Finding]:
    """In a version with tags: a tag before every part, of its document, numbered in the parts' order."""
    ordered = spans.sort("sample_id", "start")
    beside = ("kind", "doc_id", "source_start")
    following = ordered.with_columns(pl.col(name).shift(-1).over("sample_id").alias(f"next_{name}") for name in beside)
    pairs = following.filter(pl.col("kind") == "tag")
    alone = pairs.filter((pl.col("next_kind") != "document") | (pl.col("next_doc_id") != pl.col("doc_id")))
    yield judge("every tag stands before a part of its document", alone, SPAN)
    before = ordered.with_columns(pl.col(name).shift(1).over("sample_id").alias(f"last_{name}") for name in beside)
    tagged = (pl.col("last_kind") == "tag").fill_null(False) & (pl.col("last_doc_id") == pl.col("doc_id"))
    bare = before.filter((pl.col("kind") == "document") & ~tagged).join(tags.select("kind").head(1), how="cross")
    yield judge("every part has its tag before it", bare, SPAN)
    parts = pairs.filter(pl.col("next_source_start").is_not_null()).sort("doc_id", "source_start", "sample_id", "start")
    last = pl.col("next_source_start").shift(1).over("doc_id")
    number = pl.col("source_start").shift(1).over("doc_id")
    wrong = parts.filter((pl.col("next_source_start") <= last) | (pl.col("source_start") <= number))
    yield judge("parts of a document are numbered in their order", wrong, PLACE)


def _followers(subject: Subject, documents: pl.LazyFrame) -> Iterator[Finding]:
    """A document stands where it does because the round has it, or because one before it in the sample does."""
    names = subject.documents().select("doc", "doc_id")
    pairs = subject.table("neighbours").select("doc", "neighbour")
    placed = documents.join(names, on="doc_id")
    without = names.join(subject.chunks().select("doc").unique(), on="doc", how="anti")
    others = placed.join(pairs.select("doc").unique(), on="doc", how="anti").join(without, on="doc", how="anti")
    heads = placed.select("sample_id", pl.col("doc").alias("head"), pl.col("start").alias("head_start"))
    brought = (
        others.join(pairs.rename({"doc": "head", "neighbour": "doc"}), on="doc")
        .join(heads, on=["sample_id", "head"])
        .filter(pl.col("head_start") < pl.col("start"))
    )
    strange = missing(others, brought, ["sample_id", "doc"])
    yield judge("every document is one of the round or a neighbour of one before it", strange, PLACE)


def audit_membership(subject: Subject, spans: pl.LazyFrame) -> Iterator[Finding]:
    """The documents that the round's own order gives it are those it starts from; needs the corpus.

    Checked where no policy screened: whole documents, documents that have neighbours, documents of meta-chunks.
    """
    check = "every document belongs to this round"
    seed, rounds = subject.setting("options", "seed"), subject.build.get("rounds")
    if not isinstance(seed, int) or not isinstance(rounds, int):
        yield not_checkable(check, "the manifest's config names no rounds or no options.seed")
        return
    names = subject.screened_documents()
    order = names.collect().sort(
        pl.col("doc_id").map_elements(lambda doc_id: unit_hash("document-order", seed, doc_id), pl.Float64), "doc_id"
    )
    own = order[subject.manifest.round - 1 :: rounds].lazy()
    if subject.has("neighbours"):
        strange = missing(subject.table("neighbours"), own, ["doc"])
        show: tuple[str, ...] = ("doc", "rank")
    elif subject.has("roots"):
        strange = missing(subject.table("roots"), own, ["doc"])
        show = ("doc", "root")
    else:
        strange, show = missing(spans.select("sample_id", "kind", "doc_id", "start", FILE), own, ["doc_id"]), SPAN
    yield judge(check, strange, show, f"round {subject.manifest.round} of {rounds}")
