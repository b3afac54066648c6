"""Five roots of real text, the shipped model and the shipped embedder: every decision is the literal method's."""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from deploy.checks.agreement import BAND, Agreement, compare
from deploy.checks.exactness import report
from deploy.checks.screening import Product
from models.embedders import Embedder, EmbedderConfig, load_embedder
from storage.corpora import Corpus, open_corpus, publish_corpus
from storage.digests import digest_json, digest_text
from storage.home import Home
from storage.policies import policy_folder
from storage.schemas import CHUNKS, DOCUMENTS, QUARANTINE, VECTORS
from storage.tables import write_table
from storage.vectors import IndexConfig
from tasks.corpus.chunking import Chunker, ChunkingConfig
from tasks.corpus.document_table import document_row
from tasks.corpus.python_corpus import PythonCorpusConfig, iterate_python_documents
from tasks.corpus.tokenizing import tokenizing
from tasks.resources import release
from tasks.rounds.building import BuildConfig, NumericConfig, policy_inputs
from tasks.samples.assembly import AssemblyConfig
from tasks.screening.entropy import EntropyConfig
from tasks.screening.retrieval import RetrievalConfig
from tasks.screening.roots import RootsConfig
from tasks.screening.verification import VerificationConfig
from tasks.training.base_policy import BasePolicyConfig, take_base

ROOTS = 5
EMBEDDER = EmbedderConfig(threads=1, dtype="float32")  # so that one root's queries embed alike alone and among others
CONFIG = BuildConfig(
    rounds=1,
    screening_tokens=256,
    roots=RootsConfig(root_tokens=128, min_tokens=96, windows_per_document=2, roots_per_round=ROOTS, probe_roots=0),
    entropy=EntropyConfig(alpha=1.0),  # a lower threshold and a smaller epsilon than the paper's: more to compare
    retrieval=RetrievalConfig(top_k=3),
    verification=VerificationConfig(epsilon=0.1, placebo_fraction=0),
    assembly=AssemblyConfig(target_tokens=512),
    numeric=NumericConfig(device="cpu", threads=1),
)


def real_corpus(home: Home, policy: Path, embedder: Embedder) -> Corpus:
    """A few modules of the standard library that the shipped model was not trained on, ready to be screened."""
    wanted = PythonCorpusConfig(kinds=("api", "source"), parts=("screen",), max_characters=4_000)
    documents: list[dict[str, Any]] = []
    chunks: list[dict[str, Any]] = []
    limits = ChunkingConfig(max_tokens=80)
    chunker = Chunker(tokenizing(policy), embedder.lengths, embedder.limit, limits)
    for number, raw in enumerate(islice(iterate_python_documents(wanted), 12)):
        doc_id = digest_text(raw.text)
        documents.append(document_row(raw, raw.text, doc_id, "screen"))
        for ordinal, span in enumerate(s for s in chunker.spans(raw.text) if s.tokens >= limits.min_tokens):
            chunks.append(
                {
                    "chunk_id": digest_json([doc_id, span.start, span.end]),
                    "doc": number,
                    "ordinal": ordinal,
                    "char_start": span.start,
                    "char_end": span.end,
                    "tokens": span.tokens,
                    "text": raw.text[span.start : span.end],
                }
            )
    vectors = embedder.encode([chunk["text"] for chunk in chunks], "passage")
    rows = [{"chunk": n, "truncated": 0, "vector": vector.tolist()} for n, vector in enumerate(vectors)]
    tables = {
        "documents": write_table(home.path, "work/real/documents.parquet", DOCUMENTS, documents),
        "chunks": write_table(home.path, "work/real/chunks.parquet", CHUNKS, chunks),
        "quarantine": write_table(home.path, "work/real/quarantine.parquet", QUARANTINE, []),
        "vectors-00000": write_table(home.path, "work/real/vectors.parquet", VECTORS, rows),
    }
    facts = {"embedder": {"digest": embedder.digest, "dimension": embedder.dimension}, "chunking": {"max_tokens": 80}}
    return open_corpus(home, publish_corpus(home, facts, tables))


@pytest.fixture(scope="module")
def screened(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(product, its tables, its roots) of five roots."""
    home = Home.open(tmp_path_factory.mktemp("real") / "home")
    digest = take_base(home, BasePolicyConfig())
    folder = policy_folder(home, digest)
    corpus = real_corpus(home, folder, load_embedder(EMBEDDER))
    policy = policy_inputs(digest, folder, CONFIG.numeric)
    product = Product(home, corpus, policy, EMBEDDER, IndexConfig(), CONFIG)
    roots = product.roots()
    yield product, product.screened(roots, range(ROOTS)), product.literal_roots(roots, range(ROOTS))
    release()


def test_every_decision_on_real_text_is_the_literal_methods(screened: Any, capsys: pytest.CaptureFixture[str]) -> None:
    product, tables, roots = screened
    agreement = Agreement()
    compare(agreement, product.subject(), tables, roots)
    assert agreement.roots == ROOTS
    assert not [f"{kind}: {tally.first}" for kind, tally in agreement.tallies.items() if tally.different]
    assert agreement.holds
    assert max(agreement.largest.values()) < BAND
    assert {"positions", "candidates", "exclusions", "verdicts", "positives", "negatives"} <= set(agreement.tallies)
    assert agreement.tallies["verdicts"].equal >= 50
    assert agreement.tallies["positives"].equal >= 3
    assert {row["kept"] for row in tables["verdicts"]} == {True, False}
    report(agreement, 1.0)
    assert "agrees after 1 s" in capsys.readouterr().out


def test_the_comparison_sees_what_is_wrong(screened: Any) -> None:
    """One changed value in one row is a difference of its kind; without it there is none."""
    product, tables, roots = screened
    number = tables["positions"][0]["root"]
    own = {name: [row for row in rows if row["root"] == number] for name, rows in tables.items()}
    subject = product.subject()
    subject.literal.predict = lru_cache(maxsize=None)(subject.literal.predict)
    judged, first = own["verdicts"][0], own["candidates"][0]
    wrong: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("thresholds", "screened", {"threshold": own["screened"][0]["threshold"] + 1e-3}),
        ("positions", "positions", {"t": own["positions"][0]["t"] - 1}),
        ("queries", "positions", {"query": own["positions"][0]["query"][1:]}),
        ("candidates", "candidates", {"score": first["score"] - 1e-4}),
        ("exclusions", "candidates", {"excluded": "other"}),
        ("verdicts", "verdicts", {"kept": not judged["kept"]}),
        ("entropies after", "verdicts", {"entropy_after": judged["entropy_after"] + 1e-3}),
    )
    for kind, table, change in (("nothing", "screened", {}), *wrong):
        agreement = Agreement()
        changed = {**own, table: [{**own[table][0], **change}, *own[table][1:]]}
        compare(agreement, subject, changed, {number: roots[number]})
        assert agreement.holds == (kind == "nothing"), kind
        assert kind == "nothing" or agreement.tallies[kind].different, kind
