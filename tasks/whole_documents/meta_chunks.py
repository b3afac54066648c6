"""Meta-chunks: NExtLong's paragraphs of the round's documents, packed greedily (docs/method.md 3, recipe ``nextlong``).

They take the roots' place: the ``roots`` table holds them document by document, in the round's order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from storage.checkpoints import work_uri
from storage.digests import digest_json
from storage.errors import InputError
from storage.home import Home
from storage.refs import Ref
from storage.schemas import ROOTS, UNPLACED
from storage.tables import write_table
from tasks.checkpointed import step
from tasks.corpus.splitting import unit_hash
from tasks.progress import progress
from tasks.whole_documents.document_order import DocumentInputs, Encode, Listed, RoundDocuments
from tasks.whole_documents.nextlong import (
    MetaChunk,
    NextLongOptions,
    group_paragraphs,
    meta_chunk_characters,
    most_tokens,
    plans_of,
)

Row = dict[str, Any]


class MetaChunkInputs(DocumentInputs):
    """The documents of a round."""


@step("meta-chunks", code_version=1)
def cut_meta_chunks(home: Home, inputs: MetaChunkInputs, config: NextLongOptions) -> dict[str, Ref]:
    """Cuts documents until they can give the samples wanted: table ``roots``, and in ``unplaced`` those left out.

    Raises ``InputError`` when no document leaves room for ``least_negatives`` negatives per meta-chunk, and when the
    round has fewer documents than samples are wanted of it.
    """
    key = cut_meta_chunks.key(inputs, config)
    documents = RoundDocuments.open(home, inputs, config.seed)
    documents.check_supply(most_tokens, config)
    wanted = math.inf if inputs.samples is None else math.ceil(inputs.samples * config.spare)
    left: list[Row] = []

    def rows() -> Iterator[Row]:
        planned = 0
        with progress("meta-chunks", total=len(documents.listed), unit="documents") as advance:
            for document, text in documents.texts():
                found = list(meta_chunk_rows(document, text, documents.encode, inputs.target_tokens, config))
                chosen, samples = chosen_stretches(document.doc_id, found, inputs.target_tokens, config)
                if samples:
                    yield from chosen
                elif found:
                    tokens = sum(len(row["input_ids"]) for row in found)
                    left.append(_left_out(document, tokens))
                advance(1)
                planned += samples
                if planned >= wanted:
                    return

    roots = write_table(home.path, work_uri(key, "roots"), ROOTS, rows())
    if not roots.rows:
        raise InputError(
            f"none of the {len(documents.listed)} documents of round {inputs.round} leaves room for"
            f" {config.least_negatives} negatives per meta-chunk in a sample of {inputs.target_tokens} tokens.",
            hint="Raise build.assembly.target_tokens, or raise build.options.stretches.",
        )
    return {"roots": roots, "unplaced": write_table(home.path, work_uri(key, "unplaced"), UNPLACED, left)}


def meta_chunk_rows(
    document: Listed, text: str, encode: Encode, target: int, options: NextLongOptions
) -> Iterator[Row]:
    """A document's meta-chunks as rows of ``roots``, in order."""
    s = meta_chunk_characters(len(text), len(encode(text)) if options.scaled(target) else 0, target, options)
    for start, end in group_paragraphs(text, s):
        ids = list(encode(text[start:end]))
        if ids:
            yield {
                "root_id": digest_json([document.doc_id, start, end, ids]),
                "doc": document.row,
                "role": "train",
                "char_start": start,
                "char_end": end,
                "input_ids": ids,
            }


def chosen_stretches(doc_id: str, rows: list[Row], target: int, options: NextLongOptions) -> tuple[list[Row], int]:
    """The meta-chunks of a document that are used, and how many samples they are planned to make.

    All of them, unless they make more than ``stretches`` plans: then as many consecutive ones, from a place by hash.
    """
    pieces = [MetaChunk(n, row["char_start"], row["char_end"], len(row["input_ids"])) for n, row in enumerate(rows)]
    plans = list(plans_of(pieces, target, options)) if pieces else []
    if options.stretches and len(plans) > options.stretches:
        first = int(unit_hash("stretch", options.seed, doc_id) * (len(plans) - options.stretches + 1))
        plans = plans[first : first + options.stretches]
    chosen = [rows[piece.row] for plan in plans for piece in plan.pieces]
    return chosen, sum(plan.negatives >= options.least_negatives for plan in plans)


def _left_out(document: Listed, tokens: int) -> Row:
    return {
        "root": None,
        "kind": "document",
        "chunk": None,
        "doc": document.row,
        "tokens": tokens,
        "reason": "too-few-negatives",
    }
