"""The stages of recipes that ask no policy: whole documents by chance or neighbourhood, knotted, or interleaved."""

from __future__ import annotations

from typing import Any

from tasks.rounds.recipe import Stage
from tasks.rounds.round import Round
from tasks.screening.roots import shards
from tasks.whole_documents.concatenation import ConcatenationInputs, concatenate
from tasks.whole_documents.interleaving import InterleavingInputs, interleave
from tasks.whole_documents.knots import KnotsInputs, tie_knots
from tasks.whole_documents.meta_chunks import MetaChunkInputs, cut_meta_chunks
from tasks.whole_documents.meta_retrieval import MetaRetrievalInputs, retrieve_for_meta_chunks
from tasks.whole_documents.neighbour_concatenation import NeighbourConcatenationInputs, concatenate_neighbours
from tasks.whole_documents.neighbours import NeighbourInputs, find_neighbours


def _documents(this: Round) -> dict[str, Any]:
    """What every step over whole documents is told."""
    return {
        "corpus": this.corpus.digest,
        "tokenizer": this.tokenizer,
        "separator": this.config.verification.separator,
        "target_tokens": this.config.assembly.target_tokens,
        "samples": this.config.samples,
        "round": this.number,
        "rounds": this.config.rounds,
        "policy": this.policy,
    }


def _concatenation(this: Round) -> None:
    this.whole(concatenate, ConcatenationInputs(**_documents(this)), this.options)


def _knots(this: Round) -> None:
    this.whole(tie_knots, KnotsInputs(**_documents(this)), this.options)


def _neighbours(this: Round) -> None:
    inputs = NeighbourInputs(**_documents(this), index=this.index, exact=this.index.exact)
    this.whole(find_neighbours, inputs, this.options)


def _neighbour_concatenation(this: Round) -> None:
    inputs = NeighbourConcatenationInputs(**_documents(this), neighbours=tuple(this.tables["neighbours"]))
    this.whole(concatenate_neighbours, inputs, this.options)


def _meta_chunks(this: Round) -> None:
    this.whole(cut_meta_chunks, MetaChunkInputs(**_documents(this)), this.options)


def _meta_retrieval(this: Round) -> None:
    this.over_shards(
        retrieve_for_meta_chunks,
        this.options,
        (
            MetaRetrievalInputs(
                roots=this.roots,
                first_root=rows.start,
                stop_root=rows.stop,
                corpus=this.corpus.digest,
                target_tokens=this.config.assembly.target_tokens,
                embedder=this.embedder,
                index=this.index,
                exact=this.index.exact,
            )
            for rows in shards(range(this.roots.rows), _META_CHUNKS_PER_SHARD)
        ),
    )


def _interleaving(this: Round) -> None:
    inputs = InterleavingInputs(
        **_documents(this),
        roots=this.roots,
        candidates=tuple(this.tables["candidates"]),
        left_out=this.tables["unplaced"][0],
    )
    this.whole(interleave, inputs, this.options)


_META_CHUNKS_PER_SHARD = 2048

CONCATENATION = Stage(
    "concatenation", "documents one after the other in the order of a hash", _concatenation, (concatenate,)
)
KNOTS = Stage("knots", "parts of documents shuffled among each other, each with its tag", _knots, (tie_knots,))
NEIGHBOURS = Stage("neighbours", "the documents nearest to each document", _neighbours, (find_neighbours,))
NEIGHBOUR_CONCATENATION = Stage(
    "neighbour-concatenation",
    "a document followed by its neighbours",
    _neighbour_concatenation,
    (concatenate_neighbours,),
)
META_CHUNKS = Stage("meta-chunks", "paragraphs of a document grouped greedily", _meta_chunks, (cut_meta_chunks,))
META_RETRIEVAL = Stage(
    "meta-retrieval", "the chunks nearest to each meta-chunk", _meta_retrieval, (retrieve_for_meta_chunks,)
)
INTERLEAVING = Stage("interleaving", "each meta-chunk followed by its hard negatives", _interleaving, (interleave,))
