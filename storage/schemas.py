"""Columns, types, units and keys of every table: writers and readers check against these and nothing else.

Large tables name documents, chunks and roots by their integer row in the corpus or roots table, whose digest fixes the
numbering. Digests and texts appear only at the edges (corpus tables, roots, samples).
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its Arrow type, what it means (with unit), and whether it may be null."""

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class TableSchema:
    """A table: its columns and the columns that identify a row."""

    name: str
    meaning: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema, in column order, with nullability."""
        return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in self.columns])


_S, _I32, _I64, _F32, _F64, _B = pa.string(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_()
_SEGMENT = pa.struct(
    [
        pa.field("kind", _S, nullable=False),
        pa.field("root_id", _S, nullable=True),
        pa.field("chunk_id", _S, nullable=True),
        pa.field("doc_id", _S, nullable=False),
        pa.field("start", _I32, nullable=False),
        pa.field("end", _I32, nullable=False),
        pa.field("source_start", _I32, nullable=False),
    ]
)
_DEPENDENCY = pa.struct(
    [
        pa.field("root_id", _S, nullable=False),
        pa.field("t", _I32, nullable=False),
        pa.field("position", _I32, nullable=False),
        pa.field("chunk_id", _S, nullable=False),
        pa.field("distance", _I32, nullable=False),
        pa.field("entropy_before", _F32, nullable=False),
        pa.field("entropy_after", _F32, nullable=False),
        pa.field("gain", _F32, nullable=False),
    ]
)

DOCUMENTS = TableSchema(
    "documents",
    "Every document that was kept, normalised; the row number is the document's number.",
    ("doc_id",),
    (
        Column("doc_id", _S, "SHA-256 of the normalised text"),
        Column("text", _S, "normalised text"),
        Column("source", _S, "where it came from, without a path of a machine"),
        Column("title", _S, "title for people"),
        Column("group", _S, "distribution or title: the unit of the split"),
        Column("part", _S, "pretrain, screen, probe or heldout"),
        Column("metadata", _S, "further fields of the source as JSON"),
    ),
)
CHUNKS = TableSchema(
    "chunks",
    "Passages of the screened documents, in the index; the row number is the chunk's number.",
    ("chunk_id",),
    (
        Column("chunk_id", _S, "SHA-256 of doc_id, char_start and char_end"),
        Column("doc", _I32, "row of its document"),
        Column("ordinal", _I32, "place in its document, from 0"),
        Column("char_start", _I32, "first character in the document's text"),
        Column("char_end", _I32, "character after the last"),
        Column("tokens", _I32, "length in tokens of the policy's tokenizer"),
        Column("text", _S, "the passage"),
    ),
)
QUARANTINE = TableSchema(
    "quarantine",
    "Every row that was refused, with its reason.",
    ("source", "row"),
    (
        Column("source", _S, "file, without a path of a machine"),
        Column("row", _I64, "row or line in the file, from 0"),
        Column("reason", _S, "why it was refused"),
        Column("detail", _S, "what was found, at most 200 characters"),
        Column("excerpt", _S, "beginning of the text, at most 200 characters, with bad bytes replaced"),
    ),
)
VECTORS = TableSchema(
    "vectors",
    "Embedding of each chunk, unit length.",
    ("chunk",),
    (
        Column("chunk", _I32, "row of the chunk"),
        Column("truncated", _I32, "word pieces that the embedder cut off"),
        Column("vector", pa.list_(_F32), "unit vector"),
    ),
)
ROOTS = TableSchema(
    "roots",
    "Windows of documents in which uncertainty is looked for; the row number is the root's number.",
    ("root_id",),
    (
        Column("root_id", _S, "SHA-256 of doc_id, char_start, char_end and the token ids"),
        Column("doc", _I32, "row of its document"),
        Column("role", _S, "train or probe"),
        Column("char_start", _I32, "first character in the document's text"),
        Column("char_end", _I32, "character after the last"),
        Column("input_ids", pa.list_(_I32), "tokens of the policy's tokenizer"),
    ),
)
SCREENED = TableSchema(
    "screened",
    "One row per screened root: the statistics behind its threshold.",
    ("root",),
    (
        Column("root", _I32, "row of the root"),
        Column("tokens", _I32, "tokens of the root"),
        Column("scored", _I32, "positions that entered mean and deviation"),
        Column("mean", _F32, "mean entropy, nats"),
        Column("std", _F32, "population standard deviation, nats"),
        Column("threshold", _F32, "mean + alpha * std, nats"),
        Column("selected", _I32, "positions above the threshold"),
    ),
)
POSITIONS = TableSchema(
    "positions",
    "Tokens of a root whose prediction was uncertain.",
    ("root", "t"),
    (
        Column("root", _I32, "row of the root"),
        Column("t", _I32, "token index in the root, from 0; the entropy is of the prediction of this token"),
        Column("token_id", _I32, "the token that stands there"),
        Column("entropy", _F32, "nats, full vocabulary"),
        Column("nll", _F32, "negative log-likelihood of the token, nats"),
        Column("mean", _F32, "mean entropy of the root, nats"),
        Column("std", _F32, "population standard deviation of the root, nats"),
        Column("threshold", _F32, "nats"),
        Column("query", _S, "decoded window around the token"),
    ),
)
CANDIDATES = TableSchema(
    "candidates",
    "Retrieved chunks per position, excluded ones included.",
    ("root", "t", "chunk"),
    (
        Column("root", _I32, "row of the root"),
        Column("t", _I32, "position"),
        Column("chunk", _I32, "row of the chunk"),
        Column("rank", _I32, "rank by cosine, from 0, before exclusion"),
        Column("score", _F32, "cosine"),
        Column("excluded", _S, "reason, or null when it goes on to verification", nullable=True),
    ),
)
VERDICTS = TableSchema(
    "verdicts",
    "One verdict of the policy per position and candidate.",
    ("root", "t", "chunk"),
    (
        Column("root", _I32, "row of the root"),
        Column("t", _I32, "position"),
        Column("chunk", _I32, "row of the chunk"),
        Column("entropy_before", _F32, "nats, without the chunk"),
        Column("entropy_after", _F32, "nats, with the chunk in front"),
        Column("nll_before", _F32, "nats, of the token that stands there"),
        Column("nll_after", _F32, "nats"),
        Column("gain", _F32, "(before - after) / before"),
        Column("literal", _B, "the bigram before and at the position stands in the chunk"),
        Column(
            "placebo_gain", _F32, "gain from a random chunk of the same length; null outside the subset", nullable=True
        ),
        Column("kept", _B, "gain > epsilon"),
        Column("reason", _S, "why it was not kept, or null", nullable=True),
    ),
)
PASSES = TableSchema(
    "passes",
    "Where verification has a budget: every pass it could have made, in the order it would have made them.",
    ("root", "chunk"),
    (
        Column("root", _I32, "row of the root"),
        Column("chunk", _I32, "row of the chunk"),
        Column("place", _I32, "place in the root's order, from 0"),
        Column("rank", _I32, "best rank of the chunk at any position of the root"),
        Column("tokens", _I32, "tokens that the pass reads"),
        Column("expected", _F64, "positives expected of it, table ordering; null in rank order", nullable=True),
        Column("verified", _B, "was made; its verdicts are in table verdicts"),
        Column("reason", _S, "why it was left out: quota, budget or floor, or null", nullable=True),
    ),
)
ORDERING = TableSchema(
    "ordering",
    "The model behind the expected positives, fitted on the verdicts of the round's first shards.",
    ("feature",),
    (
        Column("feature", _S, "what is known of a pair before any pass (tasks.screening.evidence), or intercept"),
        Column("mean", _F64, "subtracted from the feature"),
        Column("scale", _F64, "the difference is divided by this"),
        Column("weight", _F64, "log-odds per unit"),
    ),
)
NEGATIVES = TableSchema(
    "negatives",
    "Neighbours of the verified positives.",
    ("root", "seed_chunk", "chunk"),
    (
        Column("root", _I32, "row of the root"),
        Column("seed_chunk", _I32, "row of the positive whose neighbour this is"),
        Column("chunk", _I32, "row of the chunk"),
        Column("rank", _I32, "rank by cosine, from 0"),
        Column("score", _F32, "cosine to the seed; null for a random chunk", nullable=True),
        Column("max_gain", _F32, "largest gain at a selected position; null when not verified", nullable=True),
        Column("kept", _B, "may stand in a sample"),
        Column("reason", _S, "why not, or null", nullable=True),
    ),
)
NEIGHBOURS = TableSchema(
    "neighbours",
    "The documents nearest to each document of the round, in the round's order.",
    ("doc", "neighbour"),
    (
        Column("doc", _I32, "row of the document"),
        Column("neighbour", _I32, "row of the other document"),
        Column("rank", _I32, "rank of its first chunk among all chunks by cosine, from 0"),
        Column("score", _F32, "cosine of that chunk to the mean of the document's chunks"),
    ),
)
SAMPLES = TableSchema(
    "samples",
    "Training samples: token ids with the origin of each span.",
    ("sample_id",),
    (
        Column("sample_id", _S, "SHA-256 of the token ids and segments"),
        Column("input_ids", pa.list_(_I32), "tokens of the policy's tokenizer"),
        Column("length", _I32, "tokens"),
        Column(
            "segments",
            pa.list_(_SEGMENT),
            "spans in order: kind (root, positive, negative, filler: a random chunk, document: a range of a whole"
            " document's tokens, tag: text that points at the part of a document behind it), origin, token range"
            " [start, end) in the sample, first token taken from the origin (of a tag: its part's number); the"
            " separator stands between spans and belongs to none",
        ),
        Column("dependencies", pa.list_(_DEPENDENCY), "which chunk helped which token, with distance in tokens"),
    ),
)
UNPLACED = TableSchema(
    "unplaced",
    "Roots, contexts and documents that found no place in a sample, with the reason.",
    ("root", "kind", "chunk", "doc"),
    (
        Column("root", _I32, "row of the root; null where whole documents are placed", nullable=True),
        Column("kind", _S, "root, positive, negative, document, or neighbour (of a document)"),
        Column("chunk", _I32, "row of the chunk; null for a root or document", nullable=True),
        Column("doc", _I32, "row of the document; null for a root or chunk", nullable=True),
        Column("tokens", _I32, "tokens left out"),
        Column("reason", _S, "why"),
    ),
)

TABLES: dict[str, TableSchema] = {
    schema.name: schema
    for schema in (
        DOCUMENTS,
        CHUNKS,
        QUARANTINE,
        VECTORS,
        ROOTS,
        SCREENED,
        POSITIONS,
        CANDIDATES,
        VERDICTS,
        PASSES,
        ORDERING,
        NEGATIVES,
        NEIGHBOURS,
        SAMPLES,
        UNPLACED,
    )
}
