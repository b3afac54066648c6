"""Audit of the expected yield: its model follows from the first shards' verdicts, the expectations from the model.

What is known of a pair is computed again from the corpus's texts, the policy's tokenizer, positions and candidates;
no forward pass is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import polars as pl

from storage.findings import Finding, failed, not_checkable, passed
from storage.refs import Ref
from storage.tables import RowReader, read_table
from storage.versions import table_refs
from tasks.audit.subject import Subject
from tasks.audit.tokens import Tokenise
from tasks.corpus.splitting import unit_hash
from tasks.screening.evidence import Evidence
from tasks.screening.ordered_verification import expectations, learned_model, possible_passes
from tasks.screening.ordering import learning_shards
from tasks.screening.verification import Pair, pairs_of
from tasks.screening.yield_model import YieldModel

MODEL = "the ordering's model follows from the verdicts it was fitted on"
EXPECTED = "every expectation follows from the ordering's model"
ROOTS = 64
"""Roots whose expectations are computed again, drawn by hash."""
MOST_PAIRS = 400_000
"""More pairs are not fitted again: reading their texts would take longer than all other checks together."""
TOLERANCE = 1e-6
"""Of an expectation, and of a weight: the last bits of an exponential differ between processors."""


def audit_expectations(subject: Subject, tokenise: Tokenise | None, bos: Sequence[int] = ()) -> Iterator[Finding]:
    """Both checks, of a version whose verification was ordered by expected yield; no finding of any other."""
    if not subject.has("ordering"):
        return
    separator = subject.setting("verification", "separator")
    if subject.corpus is None or tokenise is None or not isinstance(separator, str):
        yield from (not_checkable(check, "corpus or tokenizer is not at hand") for check in (MODEL, EXPECTED))
        return
    tokens = tokenise
    roots, chunks = RowReader(subject.home.path, _refs(subject, "roots")[0]), subject.corpus.chunks
    texts = RowReader(subject.home.path, chunks, ["text"])
    evidence = Evidence(lambda root: roots[root]["input_ids"], lambda chunk: tokens(texts[chunk]["text"]))
    model = YieldModel.of_rows(read_table(subject.home.path, _refs(subject, "ordering")[0]))
    front = len(bos) + len(tokens(separator))
    yield _model(subject, evidence, model)
    yield _expected(subject, evidence, model, lambda chunk: front + len(tokens(texts[chunk]["text"])))
    roots.close()
    texts.close()


def _refs(subject: Subject, table: str) -> tuple[Ref, ...]:
    return table_refs(subject.version, subject.manifest, table)


def _model(subject: Subject, evidence: Evidence, model: YieldModel) -> Finding:
    train = -(-int(subject.setting("roots", "roots_per_round")) // int(subject.build["roots_per_shard"]))
    first = learning_shards(float(subject.setting("verification", "learning_share")), train)
    shards = list(zip(*(_refs(subject, name)[:first] for name in ("positions", "candidates", "verdicts")), strict=True))
    pairs = sum(verdicts.rows for _, _, verdicts in shards)
    if pairs > MOST_PAIRS:
        return not_checkable(MODEL, f"{pairs} pairs are more than are fitted again ({MOST_PAIRS})")
    again = learned_model(evidence, (tuple(read_table(subject.home.path, ref) for ref in shard) for shard in shards))
    for was, now in zip(model.rows(), again.rows(), strict=True):
        for name in ("mean", "scale", "weight"):
            if abs(was[name] - now[name]) > TOLERANCE * max(1.0, abs(now[name])):
                found = f"{was['feature']} has {name} {was[name]:.9g}, fitted again {now[name]:.9g}"
                return failed(MODEL, found, _refs(subject, "ordering")[0].uri)
    return passed(MODEL, f"{pairs} pairs of {first} shards")


def _expected(subject: Subject, evidence: Evidence, model: YieldModel, before: Callable[[int], int]) -> Finding:
    passes = subject.table("passes")
    known = passes.select("root").unique().collect(engine="streaming")["root"].to_list()
    drawn = sorted(known, key=lambda root: (unit_hash("expectations", root), root))[:ROOTS]
    candidates, positions, listed = (
        table.filter(pl.col("root").is_in(drawn)).collect(engine="streaming")
        for table in (subject.table("candidates"), subject.table("positions"), passes)
    )

    def tokens(pair: Pair) -> int:
        return before(pair.chunk) + max(pair.positions)

    expected = expectations(evidence, model, candidates, positions)
    again = {one.key: one for one in possible_passes(candidates, pairs_of(candidates), tokens, expected)}
    for row in listed.sort("root", "place").iter_rows(named=True):
        one = again.get((row["root"], row["chunk"]))
        where = f"root {row['root']}, chunk {row['chunk']}"
        if one is None or one.expected is None or row["expected"] is None:
            return failed(EXPECTED, f"{where}: it has none", row["file"])
        if row["tokens"] != one.tokens:
            return failed(EXPECTED, f"{where}: {row['tokens']} tokens, the texts give {one.tokens}", row["file"])
        if abs(row["expected"] - one.expected) > TOLERANCE:
            found = f"{row['expected']:.9g}, the model gives {one.expected:.9g}"
            return failed(EXPECTED, f"{where}: {found}", row["file"])
    return passed(EXPECTED, f"{len(listed)} passes of {len(drawn)} roots drawn by hash")
