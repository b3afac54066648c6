"""A small world in which whole rounds run in a second: real tables, a tiny random policy, vectors of word counts.

    world = make_world(home, tmp_path)
    world.corpus, world.policy      a published corpus and a registered policy

Its embedder counts words and its index compares with every vector, so a test can repeat both in a few lines.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from models.policy_files import policy_digest
from storage.corpora import Corpus, name_corpus, open_corpus, publish_corpus
from storage.digests import digest_json, digest_text
from storage.hits import Hit
from storage.home import Home
from storage.policies import add_policy, policy_folder
from storage.schemas import CHUNKS, DOCUMENTS, QUARANTINE, VECTORS
from storage.tables import write_table
from tasks.rounds.building import BuildConfig, NumericConfig
from tasks.samples.assembly import AssemblyConfig
from tasks.screening.entropy import EntropyConfig
from tasks.screening.retrieval import RetrievalConfig
from tasks.screening.roots import RootsConfig
from tasks.screening.verification import VerificationConfig
from tests.tiny_policies import tiny_policy

DIMENSION = 48
EMBEDDER = "e" * 64
WORDS = "the value of each step moves values by a function def return shift in for list item name key index".split()


def embed(text: str) -> NDArray[np.float32]:
    """Unit vector of hashed word counts."""
    vector = np.full(DIMENSION, 1e-3, dtype=np.float64)
    for word in text.split():
        vector[hashlib.sha256(word.encode()).digest()[0] % DIMENSION] += 1
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class CountingEmbedder:
    """Embeds by counting words."""

    digest = EMBEDDER

    def encode(self, texts: Sequence[str], kind: str) -> NDArray[np.float32]:
        """Unit vectors [n, DIMENSION]."""
        return np.stack([embed(text) for text in texts]) if texts else np.empty((0, DIMENSION), np.float32)


class BruteForceIndex:
    """Compares a query with every chunk."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.vectors = vectors

    def search(self, queries: NDArray[np.float32], top: int) -> list[list[Hit]]:
        """Nearest first, ties by chunk."""
        answers = []
        for query in queries:
            scores = np.round(self.vectors.astype(np.float64) @ query.astype(np.float64), 6)
            order = sorted(range(len(scores)), key=lambda c: (-scores[c], c))[:top]
            answers.append([Hit(c, float(scores[c])) for c in order])
        return answers

    def vectors_of(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Vectors of chunks."""
        return self.vectors[list(ids)]


@dataclass(frozen=True)
class World:
    """What a round needs."""

    home: Home
    corpus: Corpus
    policy: str
    folder: Path
    documents: list[dict[str, Any]]
    chunks: list[dict[str, Any]]
    config: BuildConfig


def make_world(
    home: Home, scratch: Path, monkeypatch: pytest.MonkeyPatch, *, documents: int = 24, seed: int = 0
) -> World:
    """Writes the corpus, registers the policy, and puts the counting embedder and the brute-force index in place."""
    rows, chunks = _texts(documents, seed)
    vectors = np.stack([embed(chunk["text"]) for chunk in chunks])
    tables = {
        "documents": write_table(home.path, "work/world/documents.parquet", DOCUMENTS, rows),
        "chunks": write_table(home.path, "work/world/chunks.parquet", CHUNKS, chunks),
        "quarantine": write_table(home.path, "work/world/quarantine.parquet", QUARANTINE, []),
        "vectors-00000": write_table(
            home.path,
            "work/world/vectors.parquet",
            VECTORS,
            [{"chunk": n, "truncated": 0, "vector": vector.tolist()} for n, vector in enumerate(vectors)],
        ),
    }
    description = {"embedder": {"digest": EMBEDDER, "dimension": DIMENSION}, "chunking": {"max_tokens": 40}}
    digest = publish_corpus(home, description, tables)
    name_corpus(home, "world", digest)
    policy = _policy(home, scratch)
    for module in ("tasks.screening.retrieval", "tasks.whole_documents.meta_retrieval"):
        monkeypatch.setattr(f"{module}.embedder_for", lambda config: CountingEmbedder())
    for module in (
        "tasks.screening.retrieval",
        "tasks.screening.negatives",
        "tasks.whole_documents.neighbours",
        "tasks.whole_documents.meta_retrieval",
    ):
        monkeypatch.setattr(f"{module}.index_for", lambda home, corpus, config: BruteForceIndex(vectors))
    config = BuildConfig(
        rounds=2,
        roots_per_shard=2,
        screening_tokens=96,
        roots=RootsConfig(root_tokens=36, min_tokens=12, windows_per_document=2, roots_per_round=7, probe_roots=2),
        entropy=EntropyConfig(alpha=0.7, min_context=3, query_radius=4),
        retrieval=RetrievalConfig(top_k=6, copy_characters=20),
        verification=VerificationConfig(epsilon=0.0, placebo_fraction=0.5, copy_characters=20),
        assembly=AssemblyConfig(target_tokens=128, reuse_cap=8),
        numeric=NumericConfig(device="cpu", threads=1),
    )
    return World(home, open_corpus(home, "world"), policy, policy_folder(home, policy), rows, chunks, config)


def _policy(home: Home, scratch: Path) -> str:
    folder = tiny_policy(scratch / "base", max_position_embeddings=96)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0 if "embed" in name else 5.0)
    model.save_pretrained(folder)
    digest = policy_digest(folder)
    add_policy(home, folder, digest, parent=None, trained_on=None, round=0)
    return digest


def _texts(documents: int, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    draw = random.Random(seed)
    rows: list[dict[str, Any]] = []
    chunks: list[dict[str, Any]] = []
    for number in range(documents):
        paragraphs = [" ".join(draw.choices(WORDS, k=draw.randint(7, 10))) for _ in range(5)]
        if number % 2 == 1:
            paragraphs[1] = rows[-1]["text"].split("\n\n")[0]  # a copy, to be excluded
        text = "\n\n".join(paragraphs)
        part = "probe" if number % 8 == 7 else "heldout" if number % 8 == 6 else "screen"
        doc_id = digest_text(text)
        rows.append(
            {
                "doc_id": doc_id,
                "text": text,
                "source": f"world#{number}",
                "title": f"document {number}",
                "group": f"group {number}",
                "part": part,
                "metadata": "{}",
            }
        )
        if part != "screen":
            continue
        start = 0
        for ordinal, paragraph in enumerate(paragraphs):
            short = paragraph[:40]
            chunks.append(
                {
                    "chunk_id": digest_json([doc_id, start, start + len(short)]),
                    "doc": number,
                    "ordinal": ordinal,
                    "char_start": start,
                    "char_end": start + len(short),
                    "tokens": len(short),
                    "text": short,
                }
            )
            start += len(paragraph) + 2
    return rows, chunks
