"""The words of a corpus's chunks as an index of its own: opened, filled when it is not complete, searched by BM25.

It stands beside the index of the vectors, in the same engine, and is made only where a retrieval asks for it. Loading
reads the chunks twice, a row group at a time: once to count the words, once to weigh them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from qdrant_client import QdrantClient

from storage.corpora import Corpus
from storage.digests import digest_json, short
from storage.edge_collection import open_edge
from storage.errors import IntegrityError
from storage.hits import WordIndex
from storage.home import Home
from storage.server_collection import connect
from storage.tables import open_table
from storage.vectors import IndexConfig, server_settings
from storage.words import RULE, WEIGHT_STEP, Bm25, word_counts
from storage.words_edge import EdgeWords
from storage.words_server import ServerWords

Watch = Callable[[Iterable[list[str]], str], Iterable[list[str]]]
"""Passes batches of chunks on while it shows how many there were, under the name of the work."""


def unwatched(batches: Iterable[list[str]], work: str) -> Iterable[list[str]]:
    """Shows nothing."""
    return batches


def words_name(corpus: Corpus, bm25: Bm25) -> str:
    """The collection's name: it changes with corpus (and so its average length), k1, b and the rule of words."""
    identity = {"rule": RULE, "step": WEIGHT_STEP, "k1": bm25.k1, "b": bm25.b}
    return f"words-{short(corpus.digest, 16)}-{short(digest_json(identity), 8)}"


def ensure_words(
    home: Home,
    corpus: Corpus,
    config: IndexConfig,
    bm25: Bm25,
    *,
    watch: Watch = unwatched,
    client: QdrantClient | None = None,
) -> WordIndex:
    """Opens the corpus's words, filling them from the chunk table first when they are not complete.

    Raises ``BusyError`` when another process has the embedded index, ``ServiceError`` when the server does not
    answer and ``IntegrityError`` when the count after loading is wrong. The caller closes it. ``client`` stands in for
    the server of ``config``.
    """
    name, rows = words_name(corpus, bm25), corpus.chunks.rows
    if config.engine == "embedded":
        return open_edge(
            home,
            name,
            rows,
            EdgeWords,
            lambda index: fill_words(home, index, corpus, bm25, watch),
            wait_seconds=config.lock_wait_seconds,
        )
    settings = server_settings(config)
    words = ServerWords(client or connect(settings), name, settings)
    words.create()
    if not words.filled(rows):
        fill_words(home, words, corpus, bm25, watch)
    return words


def fill_words(home: Home, index: WordIndex, corpus: Corpus, bm25: Bm25, watch: Watch = unwatched) -> None:
    """Loads the words of all chunks; raises ``IntegrityError`` when the index then holds another number of chunks."""
    counts = word_counts(watch(_texts(home, corpus), "counting words"))
    first = 0
    for texts in watch(_texts(home, corpus), "indexing words"):
        index.load(range(first, first + len(texts)), counts.rows(texts, bm25))
        first += len(texts)
    if (count := index.count()) != corpus.chunks.rows:
        raise IntegrityError(
            f"the index of words holds {count} chunks after loading, the corpus has {corpus.chunks.rows}.",
            hint="Run the same command again; policylong audit names damaged files.",
        )


def _texts(home: Home, corpus: Corpus) -> Iterator[list[str]]:
    with open_table(home.path, corpus.chunks) as file:
        for batch in file.iter_batches(batch_size=1024, columns=["text"]):
            yield batch.column("text").to_pylist()
