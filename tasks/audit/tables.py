"""Audit of a round's funnel: each table follows from the one before it, row by row, and the counts are the manifest's.

All checks are joins of lazy frames, evaluated in a stream: memory holds keys of rows, never texts or token ids (3
million candidates with their verdicts: 8 s and 300 MB on 2 cores).
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from storage.findings import Finding, failed, not_checkable, passed
from storage.versions import version_uri
from tasks.audit.passes import audit_passes, left_in
from tasks.audit.subject import Subject, duplicates, judge, missing
from tasks.rounds.funnel import FUNNEL, TOKENS, funnel_counts, token_counts

PAIR = ("root", "t", "chunk")
TOO_SMALL, HELPFUL, NOT_VERIFIED = "gain-too-small", "helpful", "not-verified"
GAIN_TOLERANCE = 1e-6
"""A stored gain is the float32 of a quotient computed in float64: off by half a unit in the last place at most."""


def audit_counts(subject: Subject) -> Iterator[Finding]:
    """The funnel and token counts of the manifest, counted again."""
    there = {name: table for name, table in subject.tables().items() if subject.has(name)}
    counted = {"funnel": funnel_counts(there), "tokens": token_counts(subject.table("samples"))}
    known = {"funnel": counted["funnel"].keys() & FUNNEL.keys(), "tokens": TOKENS.keys()}
    manifest = f"{version_uri(subject.version)}/manifest.json"
    for part, recorded in (("funnel", subject.manifest.funnel), ("tokens", subject.manifest.tokens)):
        for name, number in sorted(recorded.items()):
            check = f"{part} count {name}"
            if name not in known[part]:
                yield not_checkable(check, f"{number}: this version of policylong does not count it", manifest)
            elif counted[part][name] != number:
                yield failed(check, f"the tables give {counted[part][name]}, the manifest says {number}", manifest)
            else:
                yield passed(check, f"{number}")
        for name in sorted(known[part] - recorded.keys() if recorded else ()):
            yield failed(
                f"{part} count {name}", f"the tables give {counted[part][name]}, the manifest has none", manifest
            )


def audit_tables(subject: Subject) -> Iterator[Finding]:
    """Referential integrity from roots to negatives, as far as the version has these tables."""
    checks = {
        "roots": _roots,
        "screened": _screened,
        "positions": _positions,
        "candidates": _candidates,
        "verdicts": _verdicts,
        "passes": audit_passes,
        "negatives": _negatives,
        "neighbours": _neighbours,
        "unplaced": _unplaced,
    }
    for table, check in checks.items():
        if subject.has(table):
            yield from check(subject)


def _roots(subject: Subject) -> Iterator[Finding]:
    yield judge("no root occurs twice", duplicates(subject.table("roots"), ["root_id"]), ("root_id", "times"))


def _screened(subject: Subject) -> Iterator[Finding]:
    screened, roots, positions = (subject.table(name) for name in ("screened", "roots", "positions"))
    yield judge("no root is screened twice", duplicates(screened, ["root"]), ("root", "times"))
    known = roots.select("root", pl.col("input_ids").list.len().cast(pl.Int32).alias("length"))
    joined = screened.join(known, on="root", how="left")
    wrong = joined.filter(pl.col("length").is_null() | (pl.col("tokens") != pl.col("length")))
    yield judge("every screened root is a root of that many tokens", wrong, ("root", "tokens"))
    found = positions.group_by("root").agg(pl.len().cast(pl.Int32).alias("found"))
    counts = screened.join(found, on="root", how="left").filter(pl.col("selected") != pl.col("found").fill_null(0))
    yield judge("every screened root has as many positions as it says", counts, ("root", "selected"))


def _positions(subject: Subject) -> Iterator[Finding]:
    positions, screened = subject.table("positions"), subject.table("screened")
    yield judge("no position occurs twice", duplicates(positions, ["root", "t"]), ("root", "t", "times"))
    yield judge("every position is of a screened root", missing(positions, screened, ["root"]), ("root", "t"))
    there = pl.col("input_ids").list.get(pl.col("t"), null_on_oob=True)
    tokens = positions.join(subject.table("roots").select("root", "input_ids"), on="root").filter(
        there.is_null() | (there != pl.col("token_id")) | (pl.col("t") < 0)
    )
    yield judge("every position's token stands in its root", tokens, ("root", "t", "token_id"))
    statistics = ("mean", "std", "threshold")
    joined = positions.join(screened.select("root", *statistics), on="root", suffix="_root")
    differ = pl.any_horizontal(pl.col(name) != pl.col(f"{name}_root") for name in statistics)
    low = joined.filter(differ | (pl.col("entropy") <= pl.col("threshold")))
    yield judge("every position lies above its root's threshold", low, ("root", "t", "entropy", "threshold"))


def _candidates(subject: Subject) -> Iterator[Finding]:
    candidates = subject.table("candidates")
    yield judge("no candidate occurs twice", duplicates(candidates, PAIR), (*PAIR, "times"))
    if subject.has("positions"):
        orphans = missing(candidates, subject.table("positions"), ["root", "t"])
        yield judge("every candidate has its position", orphans, PAIR)
    else:
        orphans = missing(candidates.filter(pl.col("t") == 0), subject.table("roots"), ["root"])
        yield judge("every candidate is of a root of this round", orphans, PAIR)
        yield judge("every candidate is of its whole root", candidates.filter(pl.col("t") != 0), PAIR)
    if subject.corpus is None:
        yield not_checkable("every candidate is a chunk of the corpus", "the corpus is not at hand")
        return
    chunks = subject.chunks().select("chunk", "doc")
    yield judge("every candidate is a chunk of the corpus", missing(candidates, chunks, ["chunk"]), PAIR)
    own = _of_own_document(candidates.filter(pl.col("excluded").is_null()), subject)
    yield judge("no candidate comes from its root's document", own, PAIR)


def _verdicts(subject: Subject) -> Iterator[Finding]:
    verdicts, candidates = subject.table("verdicts"), subject.table("candidates")
    yield judge("no verdict occurs twice", duplicates(verdicts, PAIR), (*PAIR, "times"))
    eligible = candidates.filter(pl.col("excluded").is_null())
    yield judge("every verdict has a candidate that was not excluded", missing(verdicts, eligible, PAIR), PAIR)
    if subject.manifest.funnel.get("verdicts"):
        owed = left_in(eligible, subject)
        yield judge("every candidate that was not excluded has a verdict", missing(owed, verdicts, PAIR), PAIR)
    before = subject.table("positions").select("root", "t", "entropy", "nll")
    differ = (pl.col("entropy") != pl.col("entropy_before")) | (pl.col("nll") != pl.col("nll_before"))
    joined = verdicts.join(before, on=["root", "t"]).filter(differ)
    yield judge("every verdict starts from its position's entropy", joined, (*PAIR, "entropy_before"))
    gain = _gain()
    off = verdicts.filter((gain - pl.col("gain").cast(pl.Float64)).abs() > GAIN_TOLERANCE * gain.abs().clip(1.0))
    yield judge("every gain follows from its entropies", off, (*PAIR, "gain"))
    inconsistent = verdicts.filter(pl.col("kept") != pl.col("reason").is_null())
    yield judge("every verdict that was not kept has a reason", inconsistent, PAIR)
    epsilon = subject.setting("verification", "epsilon")
    check = "every verdict is kept or refused as its gain says"
    if isinstance(epsilon, int | float):
        refused = ~pl.col("kept") & (pl.col("reason") == TOO_SMALL) & (gain > epsilon)
        wrong = verdicts.filter((pl.col("kept") & (gain <= epsilon)) | refused)
        yield judge(check, wrong, (*PAIR, "gain"), f"epsilon = {epsilon}")
    else:
        yield not_checkable(check, "the manifest's config names no verification.epsilon")


def _negatives(subject: Subject) -> Iterator[Finding]:
    negatives = subject.table("negatives")
    kept = subject.table("verdicts").filter(pl.col("kept"))
    key = ("root", "seed_chunk", "chunk")
    yield judge("no negative occurs twice", duplicates(negatives, key), (*key, "times"))
    seeds = kept.select("root", pl.col("chunk").alias("seed_chunk"))
    yield judge("every negative's seed is a kept positive", missing(negatives, seeds, ["root", "seed_chunk"]), key)
    inconsistent = negatives.filter(pl.col("kept") != pl.col("reason").is_null())
    yield judge("every negative that was not kept has a reason", inconsistent, key)
    yield from _verified(subject, negatives, key)
    usable = negatives.filter(pl.col("kept"))
    positive = usable.join(kept.select("root", "chunk").unique(), on=["root", "chunk"], how="semi")
    yield judge("no kept negative is a positive of its root", positive, key)
    if subject.corpus is None:
        yield not_checkable("every negative is a chunk of the corpus", "the corpus is not at hand")
        return
    chunks = subject.chunks().select("chunk")
    yield judge("every negative is a chunk of the corpus", missing(negatives, chunks, ["chunk"]), key)
    yield judge("no kept negative comes from its root's document", _of_own_document(usable, subject), key)


def _verified(subject: Subject, negatives: pl.LazyFrame, key: tuple[str, ...]) -> Iterator[Finding]:
    """Where the policy judged negatives: the kept ones stay below epsilon, those left out as helpful reach it."""
    gain, check = pl.col("max_gain").cast(pl.Float64), "every verified negative is kept or left out as its gain says"
    enabled, epsilon = (subject.setting("negative_verification", name) for name in ("enabled", "epsilon"))
    if not enabled:
        unasked = negatives.filter(gain.is_not_null() | pl.col("reason").is_in([HELPFUL, NOT_VERIFIED]))
        yield judge("no negative has a gain that nobody measured", unasked, (*key, "max_gain"))
    elif not isinstance(epsilon, int | float):
        yield not_checkable(check, "the manifest's config names no negative_verification.epsilon")
    else:
        helpful, skipped = pl.col("reason") == HELPFUL, pl.col("reason") == NOT_VERIFIED
        kept_wrongly = pl.col("kept") & (gain.is_null() | (gain >= epsilon))
        left_wrongly = helpful.fill_null(False) & (gain.is_null() | (gain < epsilon))
        wrong = negatives.filter(kept_wrongly | left_wrongly | (skipped.fill_null(False) & gain.is_not_null()))
        yield judge(check, wrong, (*key, "max_gain"), f"epsilon = {epsilon}")


def _neighbours(subject: Subject) -> Iterator[Finding]:
    neighbours = subject.table("neighbours")
    key = ("doc", "neighbour")
    yield judge("no pair of neighbours occurs twice", duplicates(neighbours, key), (*key, "times"))
    own = neighbours.filter(pl.col("doc") == pl.col("neighbour"))
    yield judge("no document is its own neighbour", own, key)
    if subject.corpus is None:
        yield not_checkable("every neighbour is a screened document", "the corpus is not at hand")
        return
    for column in key:
        screened = subject.screened_documents().select(pl.col("doc").alias(column))
        strange = missing(neighbours, screened, [column])
        yield judge(f"every {'document' if column == 'doc' else column} is a screened document", strange, key)


def _unplaced(subject: Subject) -> Iterator[Finding]:
    unplaced, show = subject.table("unplaced"), ("root", "doc", "kind")
    if subject.has("screened"):
        strange = missing(unplaced, subject.table("screened"), ["root"])
        yield judge("every unplaced row is of a screened root", strange, show)
        return
    nothing = unplaced.filter(pl.col("root").is_null() == pl.col("doc").is_null())
    yield judge("every unplaced row names a root or a document", nothing, show)
    strange = missing(unplaced.filter(pl.col("root").is_not_null()), subject.table("roots"), ["root"])
    yield judge("every unplaced root is a root of this round", strange, show)
    documents = unplaced.filter(pl.col("doc").is_not_null())
    if subject.corpus is None:
        yield not_checkable("every unplaced document is a screened document", "the corpus is not at hand")
        return
    strange = missing(documents, subject.screened_documents(), ["doc"])
    yield judge("every unplaced document is a screened document", strange, show)


def _of_own_document(pairs: pl.LazyFrame, subject: Subject) -> pl.LazyFrame:
    roots = subject.table("roots").select("root", pl.col("doc").alias("root_doc"))
    chunks = subject.chunks().select("chunk", pl.col("doc").alias("chunk_doc"))
    return pairs.join(roots, on="root").join(chunks, on="chunk").filter(pl.col("root_doc") == pl.col("chunk_doc"))


def _gain() -> pl.Expr:
    before, after = pl.col("entropy_before").cast(pl.Float64), pl.col("entropy_after").cast(pl.Float64)
    return pl.when(before > 0).then((before - after) / before).otherwise(0.0)
