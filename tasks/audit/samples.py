"""Audit of the samples: every span is what it says, every dependency is a verdict of the policy and stands where it
says.

Origins are checked by joins over all samples; tokens are compared sample by sample, in the order of the files, so
memory holds one row group.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from storage.findings import Finding, not_checkable
from tasks.audit.documents import audit_documents, audit_membership
from tasks.audit.subject import FILE, SPAN, Subject, duplicates, judge, missing

CONTEXTS = ("positive", "negative", "filler")
DEPENDENCY = ("sample_id", "root_id", "t", "chunk_id")


def audit_samples(subject: Subject) -> Iterator[Finding]:
    """Where spans and dependencies come from, and that they are where the sample says."""
    spans = _exploded(subject, "segments")
    yield judge("no sample occurs twice", duplicates(subject.table("samples"), ["sample_id"]), ("sample_id", "times"))
    strange = spans.filter(~pl.col("kind").is_in(_kinds(subject)))
    yield judge("every span is of a kind that the version's tables account for", strange, SPAN)
    if subject.has("roots"):
        yield from _roots(subject, spans)
    if not subject.has("verdicts"):
        yield judge("no dependency stands without a verdict", _exploded(subject, "dependencies"), DEPENDENCY)
    if subject.corpus is None:
        yield not_checkable("spans and dependencies", "the corpus is not at hand, so chunks can't be named")
        return
    if subject.has("roots"):
        yield from _contexts(subject, spans)
        yield from _origins(subject, spans)
    else:
        yield from audit_documents(subject, spans)
    if subject.has("verdicts"):
        yield from _dependencies(subject, spans)
    if not subject.has("screened"):
        yield from audit_membership(subject, spans)


def _kinds(subject: Subject) -> list[str]:
    """The kinds of spans whose origin the version's tables can prove."""
    if not subject.has("roots"):
        return ["document", "tag"]
    kinds = ["root"]
    if subject.has("verdicts"):
        kinds.append("positive")
    if subject.has("negatives"):
        kinds += ["negative", "filler"]
    elif subject.has("candidates") and not subject.has("verdicts"):
        kinds.append("negative")
    return kinds


def _exploded(subject: Subject, column: str) -> pl.LazyFrame:
    """One row per element of a list column, with ``sample_id`` and ``file``."""
    frame = subject.table("samples").select("sample_id", FILE, column).filter(pl.col(column).list.len() > 0)
    return frame.explode(column).unnest(column)


def _roots(subject: Subject, spans: pl.LazyFrame) -> Iterator[Finding]:
    placed = spans.filter(pl.col("kind") == "root")
    yield judge("no root stands in two places", duplicates(placed, ["root_id"]), ("root_id", "times"))
    roots = subject.table("roots")
    if subject.has("screened"):
        roots = roots.join(subject.table("screened").select("root"), on="root", how="semi")
    train = roots.filter(pl.col("role") == "train").select("root_id")
    yield judge("every root span is a train root of this round", missing(placed, train, ["root_id"]), SPAN)
    lengths = roots.select("root_id", pl.col("input_ids").list.len().cast(pl.Int32).alias("tokens"))
    cut = placed.join(lengths, on="root_id").filter(
        (pl.col("end") - pl.col("start") != pl.col("tokens")) | (pl.col("source_start") != 0)
    )
    if subject.has("verdicts"):
        yield judge("no root is cut", cut, (*SPAN, "end"))
        return
    ends = subject.table("samples").select("sample_id", "length")
    inside = cut.join(ends, on="sample_id").filter(
        (pl.col("source_start") != 0)
        | (pl.col("end") != pl.col("length"))
        | (pl.col("end") - pl.col("start") > pl.col("tokens"))
    )
    yield judge("no root is cut but at the end of its sample", inside, (*SPAN, "end"))


def _contexts(subject: Subject, spans: pl.LazyFrame) -> Iterator[Finding]:
    """Which chunks may stand in a sample: those its roots' verdicts, negatives or candidates name."""
    context = spans.filter(pl.col("kind").is_in(CONTEXTS))
    chunks = subject.chunks().select("chunk", "chunk_id")
    yield judge("every context span is a chunk of the corpus", missing(context, chunks, ["chunk_id"]), SPAN)
    twice = duplicates(context, ["sample_id", "chunk_id"])
    yield judge("no chunk stands twice in a sample", twice, ("sample_id", "chunk_id", "times"))
    kept = subject.table("verdicts").filter(pl.col("kept")).select("root", "chunk").unique()
    if subject.has("negatives"):
        usable = subject.table("negatives").filter(pl.col("kept")).select("root", "chunk").unique()
    else:
        usable = subject.table("candidates").filter(pl.col("excluded").is_null()).select("root", "chunk").unique()
    roots = subject.table("roots").select("root", "root_id")
    placed = spans.filter(pl.col("kind") == "root").select("sample_id", "root_id").join(roots, on="root_id")
    here = ["sample_id", "chunk_id"]
    wanted = placed.join(kept, on="root").join(chunks, on="chunk").select(here).unique()
    brought = placed.join(usable, on="root").join(chunks, on="chunk").select(here).unique()
    positives, negatives, fillers = (context.filter(pl.col("kind") == kind) for kind in CONTEXTS)
    if not subject.has("verdicts"):
        yield judge("every negative is a candidate of a root of its sample", missing(negatives, brought, here), SPAN)
        return
    yield judge("every positive was kept for a root of its sample", missing(positives, wanted, here), SPAN)
    yield judge("every negative was kept for a root of its sample", missing(negatives, brought, here), SPAN)
    yield judge("every filler was kept for a root of its sample", missing(fillers, brought, here), SPAN)
    clash = context.filter(pl.col("kind") != "positive").join(wanted, on=here, how="semi")
    yield judge("no negative is a positive of a root of its sample", clash, SPAN)
    helping = _exploded(subject, "dependencies").select(here)
    yield judge("every positive helps a position", missing(positives, helping, here), SPAN)


def _origins(subject: Subject, spans: pl.LazyFrame) -> Iterator[Finding]:
    documents = subject.documents().select("doc", pl.col("doc_id").alias("true_doc"))
    of_roots = subject.table("roots").select("root_id", "doc").join(documents, on="doc").drop("doc")
    of_chunks = subject.chunks().select("chunk_id", pl.col("doc_id").alias("true_doc"))
    roots, context = spans.filter(pl.col("kind") == "root"), spans.filter(pl.col("kind").is_in(CONTEXTS))
    known = pl.concat(
        [
            roots.join(of_roots, on="root_id", how="left").select(*SPAN, FILE, "doc_id", "true_doc"),
            context.join(of_chunks, on="chunk_id", how="left").select(*SPAN, FILE, "doc_id", "true_doc"),
        ]
    )
    wrong = known.filter(pl.col("true_doc").is_null() | (pl.col("doc_id") != pl.col("true_doc")))
    yield judge("every span names the document it comes from", wrong, SPAN)
    own = context.join(roots.select("sample_id", "doc_id"), on=["sample_id", "doc_id"], how="semi")
    yield judge("no context comes from a document of its sample's roots", own, SPAN)


def _dependencies(subject: Subject, spans: pl.LazyFrame) -> Iterator[Finding]:
    found = _exploded(subject, "dependencies")
    yield judge("no dependency occurs twice", duplicates(found, DEPENDENCY), (*DEPENDENCY, "times"))
    roots = subject.table("roots").select("root", "root_id")
    chunks = subject.chunks().select("chunk", "chunk_id")
    kept = subject.table("verdicts").filter(pl.col("kept")).join(roots, on="root").join(chunks, on="chunk")
    pair = ["root_id", "t", "chunk_id"]
    yield judge("every dependency has a kept verdict", missing(found, kept, pair), DEPENDENCY)
    values = ("entropy_before", "entropy_after", "gain")
    joined = found.join(kept.select(*pair, *values), on=pair, suffix="_verdict")
    differ = pl.any_horizontal(pl.col(name) != pl.col(f"{name}_verdict") for name in values)
    yield judge("every dependency has its verdict's entropies", joined.filter(differ), DEPENDENCY)
    root_spans = spans.filter(pl.col("kind") == "root").select("sample_id", "root_id", "start", "end", "source_start")
    chunk_spans = spans.filter(pl.col("kind") == "positive").select(
        "sample_id", "chunk_id", pl.col("end").alias("chunk_end")
    )
    placed = found.join(root_spans, on=["sample_id", "root_id"], how="left")
    away = placed.filter(
        pl.col("start").is_null()
        | (pl.col("position") != pl.col("start") + pl.col("t") - pl.col("source_start"))
        | (pl.col("position") >= pl.col("end"))
        | (pl.col("t") < 0)
    )
    yield judge("every dependency's position lies in its root at t", away, (*DEPENDENCY, "position"))
    apart = placed.join(chunk_spans, on=["sample_id", "chunk_id"], how="left").filter(
        pl.col("chunk_end").is_null()
        | (pl.col("distance") != pl.col("position") - pl.col("chunk_end"))
        | (pl.col("distance") < 0)
    )
    yield judge("every dependency's chunk stands before it at its distance", apart, (*DEPENDENCY, "distance"))
