"""The product's own steps over one preset, run shard by shard without Prefect, beside the literal method."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.checks.agreement import Agreement, Subject, compare, passes
from flows.presets import Preset
from flows.session import Session
from models.embedders import EmbedderConfig
from storage.corpora import Corpus, open_corpus
from storage.errors import InputError
from storage.home import Home
from storage.policies import policy_folder
from storage.refs import Ref
from storage.tables import RowReader, read_table
from storage.vectors import IndexConfig, vector_batches
from tasks.corpus.tokenizing import tokenizer_digest
from tasks.progress import progress
from tasks.resources import PolicyInputs, embedder_for
from tasks.rounds.building import BuildConfig, check_policy, policy_inputs
from tasks.screening.entropy import EntropyInputs, screen_entropy
from tasks.screening.negatives import NegativesInputs, find_negatives
from tasks.screening.retrieval import RetrievalInputs, retrieve
from tasks.screening.roots import RootsInputs, cut_roots, round_rows, shards
from tasks.screening.verification import VerificationInputs, verify
from tasks.training.base_policy import take_base
from tests.literal_method import Chunk, LiteralPolicy, Root


@dataclass(frozen=True)
class Product:
    """The product's steps over one corpus and policy, run without Prefect."""

    home: Home
    corpus: Corpus
    policy: PolicyInputs
    embedder: EmbedderConfig
    index: IndexConfig
    config: BuildConfig

    def roots(self) -> Ref:
        """The roots table."""
        folder = Path(self.policy.folder)
        inputs = RootsInputs(
            documents=self.corpus.documents, tokenizer=tokenizer_digest(folder), rounds=1, tokenizer_folder=str(folder)
        )
        return cut_roots.run(self.home, inputs, self.config.roots)["roots"]

    def screened(self, roots: Ref, rows: range) -> dict[str, list[dict[str, Any]]]:
        """The rows of all tables of a shard of roots, from positions to negatives."""
        home, config, digest = self.home, self.config, self.corpus.digest
        shard = EntropyInputs(roots=roots, first_root=rows.start, stop_root=rows.stop, policy=self.policy)
        found = screen_entropy.run(home, shard, config.entropy)
        search = RetrievalInputs(
            positions=found["positions"], roots=roots, corpus=digest, embedder=self.embedder, index=self.index
        )
        found |= retrieve.run(home, search, config.retrieval)
        judged = VerificationInputs(
            positions=found["positions"],
            candidates=found["candidates"],
            roots=roots,
            corpus=digest,
            policy=self.policy,
        )
        found |= verify.run(home, judged, config.verification)
        second = NegativesInputs(verdicts=found["verdicts"], roots=roots, corpus=digest, index=self.index)
        found |= find_negatives.run(home, second, config.negatives)
        return {name: read_table(home.path, ref).to_dicts() for name, ref in found.items()}

    def subject(self) -> Subject:
        """What the literal method needs to do the same."""
        rows = read_table(self.home.path, self.corpus.chunks, ["doc", "text"]).iter_rows()
        vectors = np.empty((self.corpus.chunks.rows, self.corpus.dimension), np.float32)
        for ref in self.corpus.vectors:
            for ids, found in vector_batches(self.home, ref, self.corpus.dimension):
                vectors[ids] = found
        return Subject(
            literal=LiteralPolicy.load(Path(self.policy.folder), self.config.verification.separator),
            chunks=[Chunk(doc, text) for doc, text in rows],
            vectors=vectors,
            encode=lambda texts: embedder_for(self.embedder).encode(texts, "query"),
            config=self.config,
        )

    def literal_roots(self, roots: Ref, rows: range) -> dict[int, Root]:
        """The roots of a shard as the literal method sees them."""
        table = RowReader(self.home.path, roots)
        documents = RowReader(self.home.path, self.corpus.documents, ["text"])
        found = {}
        for number in rows:
            row = table[number]
            text = documents[row["doc"]]["text"][row["char_start"] : row["char_end"]]
            found[number] = Root(row["doc"], text, tuple(row["input_ids"]))
        table.close()
        documents.close()
        return found


def compare_all(product: Product, agreement: Agreement) -> None:
    """Screens every root of the product's configuration both ways, shard by shard, and counts into ``agreement``."""
    subject, roots = product.subject(), product.roots()
    pieces = shards(round_rows(product.config.roots, 1), product.config.roots_per_shard)
    for number, rows in enumerate(pieces, start=1):
        tables, own = product.screened(roots, rows), product.literal_roots(roots, rows)
        description = f"literal method, shard {number} of {len(pieces)}"
        with progress(description, total=passes(tables, own), unit="passes") as advance:
            compare(agreement, subject, tables, own, advance)


def preset_corpus(home: Home, preset: Preset) -> Corpus:
    """The preset's corpus, ingested now when the home does not have it."""
    try:
        return open_corpus(home, preset.corpus.name)
    except InputError:
        from flows.ingest import ingest

        with Session(home.path).running():
            return open_corpus(home, ingest(str(home.path), preset.corpus, preset.index))


def product_of(home: Home, preset: Preset) -> Product:
    """The preset's corpus and base policy in this home; raises ``ConfigError`` when its sizes do not fit."""
    corpus, digest = preset_corpus(home, preset), take_base(home, preset.policy)
    folder = policy_folder(home, digest)
    check_policy(folder, corpus, preset.build)
    policy = policy_inputs(digest, folder, preset.build.numeric)
    return Product(home, corpus, policy, preset.corpus.embedder, preset.index, preset.build)
