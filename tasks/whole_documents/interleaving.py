"""NExtLong's samples: meta-chunks of a document in order, each at the head of its negatives
(docs/method.md 3, recipe ``nextlong``).

    [m_1, n_11 .. n_1k, m_2, n_21 .. n_2k, …]

One document per sample. A chunk stands once in a sample. A sample that falls short of the target is dropped, what
exceeds it is cut at its end [paper].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from models.policy import load_tokenizer
from storage.checkpoints import work_uri
from storage.corpora import corpus_to_read
from storage.errors import InputError
from storage.home import Home
from storage.refs import Ref
from storage.schemas import SAMPLES, UNPLACED
from storage.tables import RowReader, read_table, write_table
from tasks.checkpointed import step
from tasks.progress import track
from tasks.resources import bos_ids
from tasks.samples.spans import Form, Span
from tasks.screening.passages import Passages
from tasks.screening.verification import separator_ids
from tasks.whole_documents.document_order import DocumentInputs
from tasks.whole_documents.meta_retrieval import stored_plans
from tasks.whole_documents.nextlong import NextLongOptions, Plan

Row = dict[str, Any]


class InterleavingInputs(DocumentInputs):
    """The meta-chunks of a round and their candidates."""

    roots: Ref
    candidates: tuple[Ref, ...] = Field(description="Tables ``candidates`` of consecutive shards of the roots.")
    left_out: Ref | None = Field(None, description="Table ``unplaced`` of the step before, taken over.")


def negatives_of(candidates: Sequence[Sequence[int]], k: int) -> list[list[int]]:
    """The negatives of each meta-chunk of a sample: its nearest ``k`` that none before it took.

    ``candidates`` are the usable chunks of each meta-chunk, nearest first.
    """
    taken: set[int] = set()
    chosen: list[list[int]] = []
    for nearest in candidates:
        own = [chunk for chunk in nearest if chunk not in taken][:k]
        taken.update(own)
        chosen.append(own)
    return chosen


@step("interleaving", code_version=1)
def interleave(home: Home, inputs: InterleavingInputs, config: NextLongOptions) -> dict[str, Ref]:
    """Samples of meta-chunks and their negatives: tables ``samples`` and ``unplaced``.

    Raises ``InputError`` when no document's negatives fill a sample.
    """
    key = interleave.key(inputs, config)
    work = _Interleaving(home, inputs, config)
    try:
        written = write_table(home.path, work_uri(key, "samples"), SAMPLES, work.samples())
    finally:
        work.close()
    if not written.rows:
        raise InputError(
            f"no document of round {inputs.round} has negatives enough to fill a sample of {inputs.target_tokens}"
            " tokens: chunks are much shorter than meta-chunks, or there are too few.",
            hint="Set build.options.scale, raise build.options.w or corpus.chunking.max_tokens, or ingest more text.",
        )
    left = _taken_over(home, inputs.left_out) + work.left
    return {"samples": written, "unplaced": write_table(home.path, work_uri(key, "unplaced"), UNPLACED, left)}


class _Interleaving:
    """Plans, meta-chunks and candidates read side by side, in the order of the roots table."""

    def __init__(self, home: Home, inputs: InterleavingInputs, config: NextLongOptions) -> None:
        corpus = corpus_to_read(home, inputs.corpus)
        tokenizer = load_tokenizer(Path(inputs.policy.folder), remote_code=inputs.policy.remote_code)
        self._home, self._inputs, self._config = home, inputs, config
        self._form = Form(inputs.target_tokens, bos_ids(tokenizer), separator_ids(tokenizer, inputs.separator))
        self._roots = RowReader(home.path, inputs.roots, ["root_id", "doc", "input_ids"])
        self._documents = RowReader(home.path, corpus.documents, ["doc_id"])
        self._passages = Passages(
            home, roots=inputs.roots, chunks=corpus.chunks, documents=corpus.documents, tokenizer=tokenizer
        )
        self.left: list[Row] = []

    def samples(self) -> Iterator[Row]:
        plans = list(stored_plans(self._home, self._inputs.roots, self._inputs.target_tokens, self._config))
        candidates = _Usable(self._home, self._inputs.candidates)
        made = 0
        for plan in track(plans, len(plans), "interleaving", "plans"):
            if made == self._inputs.samples:
                self._report(plan, "budget")
            elif plan.negatives < self._config.least_negatives:
                self._report(plan, "too-few-negatives")
            else:
                row = self._sample(plan, candidates)
                if row is not None:
                    made += 1
                    yield row

    def close(self) -> None:
        for reader in (self._roots, self._documents, self._passages):
            reader.close()

    def _sample(self, plan: Plan, candidates: _Usable) -> Row | None:
        chosen = negatives_of([candidates.of(piece.row) for piece in plan.pieces], plan.negatives)
        spans: list[Span] = []
        heads: list[int] = []
        for piece, chunks in zip(plan.pieces, chosen, strict=True):
            heads.append(len(spans))
            spans.append(self._root(piece.row))
            spans.extend(self._negative(chunk) for chunk in chunks)
        laid = self._form.lay_out(spans)
        if laid is None:
            self._report(plan, "sample-not-filled")
            return None
        row, placed = laid
        for piece, head in zip(plan.pieces, heads, strict=True):
            if placed[head] < piece.tokens:
                self.left.append(_unplaced_root(piece.row, piece.tokens - placed[head], "sample-full"))
        return row

    def _root(self, number: int) -> Span:
        row = self._roots[number]
        return Span("root", self._documents[row["doc"]]["doc_id"], row["input_ids"], root_id=row["root_id"])

    def _negative(self, number: int) -> Span:
        chunk = self._passages.chunk(number)
        doc_id = self._documents[chunk.doc]["doc_id"]
        return Span("negative", doc_id, self._passages.chunk_ids(number), chunk_id=chunk.chunk_id)

    def _report(self, plan: Plan, reason: str) -> None:
        self.left.extend(_unplaced_root(piece.row, piece.tokens, reason) for piece in plan.pieces)


class _Usable:
    """Candidates that were not excluded, root by root in ascending order; memory holds one shard."""

    def __init__(self, home: Home, refs: Sequence[Ref]) -> None:
        self._home = home
        self._refs = list(refs)
        self._known: dict[int, list[int]] = {}
        self._last = -1

    def of(self, root: int) -> list[int]:
        """The usable chunks of a root, nearest first; roots must be asked for in ascending order."""
        while root > self._last and self._refs:
            frame = read_table(self._home.path, self._refs.pop(0), ["root", "chunk", "rank", "excluded"])
            if not len(frame):
                continue
            last = frame["root"].max()
            assert isinstance(last, int)
            usable = frame.filter(pl.col("excluded").is_null()).sort("root", "rank")
            grouped = usable.group_by("root", maintain_order=True).agg("chunk")
            self._known = {row: chunks for row, chunks in self._known.items() if row >= root}
            self._known |= {int(row): list(chunks) for row, chunks in grouped.iter_rows()}
            self._last = last
        return self._known.get(root, [])


def _taken_over(home: Home, ref: Ref | None) -> list[Row]:
    return [] if ref is None else read_table(home.path, ref).to_dicts()


def _unplaced_root(row: int, tokens: int, reason: str) -> Row:
    return {"root": row, "kind": "root", "chunk": None, "doc": None, "tokens": tokens, "reason": reason}
