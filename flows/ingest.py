"""The ingest flow: files → documents → chunks → vectors → a corpus with a loaded index.

    digest = ingest("/path/to/home", IngestConfig(name="books", paths=("books.parquet",)))

Every step is checkpointed and every shard of vectors is a step of its own: a killed run is carried on by the same
call, and a second one finds everything finished.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.logs import say
from models.embedders import embedder_digest
from storage.corpora import Corpus, name_corpus, open_corpus
from storage.digests import short
from storage.home import Home
from storage.refs import Ref
from storage.vectors import IndexConfig, prepare_index
from tasks.corpus.chunk_table import ChunkInputs, ChunkLimits, chunk_documents
from tasks.corpus.chunk_tokens import TokenInputs, TokenOptions, tokenise_chunks
from tasks.corpus.contamination import benchmark_digests
from tasks.corpus.embedding import EmbedInputs, EmbedNumerics, embed_shard, shards
from tasks.corpus.ingestion import IngestConfig
from tasks.corpus.publishing import CorpusParts, publish
from tasks.corpus.python_corpus import package_versions
from tasks.corpus.reading import ReadInputs, read_documents
from tasks.corpus.report import ingest_report
from tasks.corpus.separating import SeparateInputs, separate_documents
from tasks.corpus.sources import find_sources
from tasks.corpus.tokenizing import tokenizer_context, tokenizer_digest, tokenizer_folder
from tasks.progress import progress

LOCK_WAIT_SECONDS = 5.0


@flow(name="ingest", flow_run_name="ingest {config.name}")
def ingest(home_path: str, config: IngestConfig, index: IndexConfig | None = None) -> str:
    """Makes the corpus that ``config`` describes, loads its index and returns its digest.

    Raises ``InputError`` for files that can't be used and ``QuarantineError`` when too many rows are refused.
    """
    home = Home.open(Path(home_path))
    if config.is_ready_made:
        return open_corpus(home, config.name).digest
    inputs = read_inputs(config)
    context = tokenizer_context(config.chunking.tokenizer)
    config = config.model_copy(update={"chunking": config.chunking.fitted(context)})
    with home.lock(f"ingest-{config.name}", wait_seconds=LOCK_WAIT_SECONDS):
        documents = read_documents(home, inputs, config.reading, label=config.name)
        apart = separate_documents(
            home,
            SeparateInputs(documents=documents["documents"], quarantine=documents["quarantine"]),
            config.separation,
            label=config.name,
        )
        parts = _embedded(home, config, apart, documents["counts"])
        digest = publish(home, config, inputs, parts)
        name_corpus(home, config.name, digest)
        corpus = open_corpus(home, digest)
        prepare_index(home, corpus, index or IndexConfig())
        _report(corpus, config)
        say(
            f"corpus {config.name}: {corpus.documents.rows:,} documents, {corpus.chunks.rows:,} chunks,"
            f" {corpus.quarantine.rows:,} rows refused; {short(digest)}"
        )
    return digest


def read_inputs(config: IngestConfig) -> ReadInputs:
    """What the reading step depends on: every input file's digest, or the versions of the installed packages."""
    benchmarks = config.contamination.paths
    return ReadInputs(
        files=tuple(find_sources(config.paths).digests()) if config.paths else (),
        packages=package_versions() if config.python else {},
        benchmarks=benchmark_digests(benchmarks),
        paths=config.paths,
        benchmark_paths=benchmarks,
    )


def _embedded(home: Home, config: IngestConfig, documents: dict[str, Ref], counts: Ref) -> CorpusParts:
    folder = tokenizer_folder(config.chunking.tokenizer)
    tokenizer, embedder = tokenizer_digest(folder), embedder_digest(config.embedder)
    chunked = chunk_documents(
        home,
        ChunkInputs(
            documents=documents["documents"],
            tokenizer=tokenizer,
            embedder=embedder,
            tokenizer_folder=str(folder),
            embedder_config=config.embedder,
        ),
        ChunkLimits.of(config.chunking),
        label=config.name,
    )
    chunks, vectors = chunked["chunks"], []
    spelled = tokenise_chunks(
        home,
        TokenInputs(chunks=chunks, tokenizer=tokenizer, tokenizer_folder=str(folder)),
        TokenOptions(),
        label=config.name,
    )
    numerics = EmbedNumerics.of(config.embedder)
    pieces = shards(chunks.rows, config.chunks_per_shard)
    with progress("embedding", total=chunks.rows, unit="chunks") as advance:
        for number, (start, stop) in enumerate(pieces):
            shard = EmbedInputs(
                chunks=chunks, start=start, stop=stop, embedder=embedder, embedder_config=config.embedder
            )
            done = embed_shard(home, shard, numerics, label=f"{config.name} shard {number + 1} of {len(pieces)}")
            vectors.append(done["vectors"])
            advance(stop - start)
    return CorpusParts(
        documents=documents["documents"],
        quarantine=documents["quarantine"],
        chunks=chunks,
        tokens=spelled["tokens"],
        vectors=tuple(vectors),
        counts=(counts, documents["counts"], chunked["counts"]),
        tokenizer=tokenizer,
        embedder=embedder,
    )


def _report(corpus: Corpus, config: IngestConfig) -> None:
    create_markdown_artifact(
        key="ingest-report", markdown=ingest_report(corpus, config.name), description=f"Ingest of {config.name}"
    )
