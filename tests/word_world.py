"""Corpora whose tokens are words: lengths, ids and places can be counted by eye, and a long text is tokenised fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from storage.corpora import Corpus, open_corpus, publish_corpus
from storage.digests import digest_json, digest_text
from storage.home import Home
from storage.refs import Ref
from storage.schemas import CHUNKS, DOCUMENTS, QUARANTINE, ROOTS, TABLES, VECTORS
from storage.tables import write_table

BOS, SEPARATOR = "<s>", "\n\n"
EMBEDDER = "e" * 64


def word_tokenizer(words: Sequence[str], *, bos: bool = False) -> PreTrainedTokenizerFast:
    """Id 0 is the BOS (put in front of a text only with ``bos``), 1 the empty line, 2 … the words."""
    vocabulary = {token: number for number, token in enumerate((BOS, SEPARATOR, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=BOS))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n\n|\S+"), behavior="removed", invert=True)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS if bos else None, eos_token=None)


@dataclass(frozen=True)
class WordWorld:
    """A published corpus of words: ``documents[d]`` are the paragraphs of document d, which are its chunks as well.

    Chunks are numbered through; a root is the first ``paragraphs`` paragraphs of a document from ``first`` on.
    """

    home: Home
    corpus: Corpus
    roots: Ref
    chunk_rows: list[dict[str, Any]]
    root_rows: list[dict[str, Any]]

    def table(self, name: str, rows: list[dict[str, Any]], place: str) -> Ref:
        """Rows as a table of this home."""
        return write_table(self.home.path, f"work/words/{place}-{name}.parquet", TABLES[name], rows)


def make_word_world(
    home: Home,
    tokenizer: PreTrainedTokenizerFast,
    documents: Sequence[Sequence[str]],
    roots: Sequence[tuple[int, int, int]],
    vectors: np.ndarray[Any, np.dtype[np.float32]] | None = None,
) -> WordWorld:
    """Publishes the corpus; ``roots`` are (document, first paragraph, paragraphs)."""
    document_rows: list[dict[str, Any]] = []
    chunk_rows: list[dict[str, Any]] = []
    for number, paragraphs in enumerate(documents):
        text = SEPARATOR.join(paragraphs)
        facts = {"source": f"words#{number}", "title": f"document {number}", "group": f"group {number}"}
        document_rows.append({"doc_id": digest_text(text), "text": text, **facts, "part": "screen", "metadata": "{}"})
        start = 0
        for ordinal, paragraph in enumerate(paragraphs):
            end = start + len(paragraph)
            chunk_id = digest_json([digest_text(text), start, end])
            place = {"doc": number, "ordinal": ordinal, "char_start": start, "char_end": end}
            chunk_rows.append({"chunk_id": chunk_id, **place, "tokens": len(paragraph.split()), "text": paragraph})
            start = end + len(SEPARATOR)
    root_rows = [_root(tokenizer, documents[doc], doc, first, count) for doc, first, count in roots]
    tables = {
        "documents": write_table(home.path, "work/words/documents.parquet", DOCUMENTS, document_rows),
        "chunks": write_table(home.path, "work/words/chunks.parquet", CHUNKS, chunk_rows),
        "quarantine": write_table(home.path, "work/words/quarantine.parquet", QUARANTINE, []),
    }
    if vectors is not None:
        rows = [{"chunk": n, "truncated": 0, "vector": vector.tolist()} for n, vector in enumerate(vectors)]
        tables["vectors-00000"] = write_table(home.path, "work/words/vectors.parquet", VECTORS, rows)
    dimension = 0 if vectors is None else vectors.shape[1]
    facts_of_corpus = {"embedder": {"digest": EMBEDDER, "dimension": dimension}, "chunking": {"max_tokens": 512}}
    corpus = open_corpus(home, publish_corpus(home, facts_of_corpus, tables))
    written = write_table(home.path, "work/words/roots.parquet", ROOTS, root_rows)
    return WordWorld(home, corpus, written, chunk_rows, root_rows)


def _root(
    tokenizer: PreTrainedTokenizerFast, paragraphs: Sequence[str], doc: int, first: int, count: int
) -> dict[str, Any]:
    start = len(SEPARATOR.join(["", *paragraphs[:first]])) if first else 0
    text = SEPARATOR.join(paragraphs[first : first + count])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    place = {"doc": doc, "role": "train", "char_start": start, "char_end": start + len(text)}
    return {"root_id": digest_json([doc, start, text]), **place, "input_ids": ids}


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Saves a tokenizer where a policy's would lie."""
    tokenizer.save_pretrained(folder)
    return folder


def verdict(root: int, t: int, chunk: int, gain: float, *, kept: bool = True) -> dict[str, Any]:
    """A row of verdicts with the given gain."""
    nats = {"entropy_before": 2.0, "entropy_after": 2.0 * (1 - gain), "nll_before": 1.0, "nll_after": 1.0, "gain": gain}
    facts = {"literal": False, "placebo_gain": None, "kept": kept, "reason": None if kept else "gain-too-small"}
    return {"root": root, "t": t, "chunk": chunk, **nats, **facts}


def negative(root: int, seed: int, chunk: int, rank: int, *, kept: bool = True) -> dict[str, Any]:
    """A row of negatives."""
    facts = {"score": 0.5, "max_gain": None, "kept": kept, "reason": None if kept else "near-duplicate"}
    return {"root": root, "seed_chunk": seed, "chunk": chunk, "rank": rank, **facts}
