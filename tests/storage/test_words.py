"""A search of words is BM25 written out in full, on both engines, and no order of loading changes an answer."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import QdrantClient

from storage.corpora import Corpus, open_corpus, publish_corpus
from storage.errors import BusyError, IntegrityError
from storage.hits import Hit, WordIndex
from storage.home import Home
from storage.schemas import CHUNKS, DOCUMENTS, QUARANTINE
from storage.tables import write_table
from storage.vectors import IndexConfig
from storage.word_index import ensure_words, words_name
from storage.words import WEIGHT_STEP, Bm25, query_words, word_counts, word_numbers
from storage.words_edge import EdgeWords
from tests.literal_words import best, bm25
from tests.storage.test_vectors import chunk_row

# The client's in-memory engine says that it searches exactly anyway.
pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

BM25 = Bm25(1.2, 0.75)
SERVER = IndexConfig(engine="server", url="http://fake", attempts=1, patience_seconds=0, batch=50)
VOCABULARY = "return self def Größe naïve key_id x1 the value of λ index 東京 for in".split()
Texts = Sequence[str]


def texts(count: int = 300, seed: int = 0) -> list[str]:
    """Chunks of common and rare words in mixed case; some equal, one without a word, one empty."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        words = draw.choices(VOCABULARY, weights=range(len(VOCABULARY), 0, -1), k=draw.randint(1, 12))
        words += [f"rare{number % 40}"] * (number % 3)
        found.append(", ".join(word.upper() if draw.random() < 0.3 else word for word in words))
    found[7], found[8], found[9:12] = "…!? --", "", [found[3]] * 3
    return found


def make_corpus(home: Home, chunks: Texts) -> Corpus:
    tables = {
        "documents": write_table(home.path, "work/d.parquet", DOCUMENTS, []),
        "chunks": write_table(
            home.path, "work/c.parquet", CHUNKS, [{**chunk_row(n), "text": text} for n, text in enumerate(chunks)]
        ),
        "quarantine": write_table(home.path, "work/q.parquet", QUARANTINE, []),
    }
    return open_corpus(home, publish_corpus(home, {"embedder": {"digest": "e" * 64, "dimension": 2}}, tables))


def opened(home: Home, corpus: Corpus, engine: str, weighing: Bm25 = BM25) -> WordIndex:
    if engine == "embedded":
        return ensure_words(home, corpus, IndexConfig(), weighing)
    return ensure_words(home, corpus, SERVER, weighing, client=QdrantClient(":memory:"))


@pytest.fixture(params=["embedded", "server"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def index(home: Home, engine: str) -> Iterator[WordIndex]:
    found = opened(home, make_corpus(home, texts()), engine)
    yield found
    found.close()


QUERIES = ["Return SELF, größe", "rare5 the value of rare6", "東京 naïve", "nothing-known ohne", "…", "the " * 50]


@pytest.mark.parametrize("top", [1, 10, 400])
def test_a_search_is_the_literal_formula(index: WordIndex, top: int) -> None:
    chunks = texts()
    found = index.search([query_words(query) for query in QUERIES], top)
    for query, hits in zip(QUERIES, found, strict=True):
        merits = bm25(chunks, query)
        assert hits == [Hit(chunk, round(merits[chunk], 6)) for chunk in best(merits, top)]
    assert found[3] == found[4] == [], "no chunk has a word of it"
    assert index.count() == len(chunks), "chunks without a word are chunks"


def test_k1_and_b_are_the_formula_s_and_part_of_the_name(home: Home, engine: str) -> None:
    chunks, others = texts(80), Bm25(2.0, 0.3)
    corpus = make_corpus(home, chunks)
    index = opened(home, corpus, engine, others)
    merits = bm25(chunks, "the value", 2.0, 0.3)
    assert dict(index.search([query_words("the value")], 80)[0]) == {c: round(m, 6) for c, m in merits.items()}
    index.close()
    assert len({words_name(corpus, weighing) for weighing in (BM25, others, Bm25(1.2, 0.3))}) == 3


def test_weights_are_the_formula_s_to_half_a_step_and_sums_do_not_depend_on_their_order() -> None:
    chunks = texts()
    counts = word_counts([chunks[:100], chunks[100:]])
    for row in counts.rows(chunks[20:40], BM25):
        exact = np.array(row.weights, np.float32)
        assert np.array_equal(exact / np.float32(WEIGHT_STEP), np.round(exact / np.float32(WEIGHT_STEP)))
        forwards, backwards = np.cumsum(exact), np.cumsum(exact[::-1])
        assert len(exact) == 0 or forwards[-1] == backwards[-1] == math.fsum(row.weights)
        assert row.numbers == sorted(set(row.numbers))


def test_loading_again_and_in_another_order_changes_no_answer(home: Home, index: WordIndex) -> None:
    chunks = texts()
    queries = [query_words(query) for query in QUERIES]
    before = index.search(queries, 20)
    rows = word_counts([chunks]).rows(chunks, BM25)
    backwards = list(range(len(chunks)))[::-1]
    index.load(backwards[:250], [rows[chunk] for chunk in backwards[:250]])
    assert index.search(queries, 20) == before
    assert index.count() == len(chunks)


short_texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12)


@given(batches=st.lists(st.lists(short_texts, max_size=6), max_size=8))
def test_counting_in_batches_is_counting_at_once(batches: list[list[str]]) -> None:
    counts = word_counts(batches)
    split = [{crc32(w.encode()) for w in re.findall(r"\w+", text.lower())} for batch in batches for text in batch]
    holders = Counter(number for chunk in split for number in chunk)
    assert dict(zip(counts.numbers.tolist(), counts.holders.tolist(), strict=True)) == holders
    assert counts.numbers.tolist() == sorted(holders)
    assert counts.chunks == len(split)
    assert counts.length == sum(len(word_numbers(text)) for batch in batches for text in batch)


@pytest.mark.parametrize(
    ("text", "same"),
    [("Straße", "STRAßE"), ("key_id", "KEY_ID"), ("a b", "a\n\tb"), ("f(x)", "F x"), ("x-1", "x, 1")],
)
def test_case_and_what_stands_between_words_do_not_count(text: str, same: str) -> None:
    assert word_numbers(text) == word_numbers(same) != []


def test_the_numbers_of_words_are_those_of_every_machine() -> None:
    assert word_numbers("the Größe 東京") == [0x3C456DE6, 0x5BD3A989, 0x922642EF]


def test_words_are_loaded_once_and_anew_after_a_load_that_was_killed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = texts(1500)
    corpus = make_corpus(home, chunks)
    real, calls = EdgeWords.load, [0]

    def stops(self: EdgeWords, *arguments: object) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(EdgeWords, "load", stops)
    with pytest.raises(KeyboardInterrupt):
        opened(home, corpus, "embedded")
    first = opened(home, corpus, "embedded")
    assert first.count() == 1500
    with pytest.raises(BusyError, match="index-words-"):
        ensure_words(home, corpus, IndexConfig(lock_wait_seconds=0), BM25)
    first.close()
    made = calls[0]
    again = opened(home, corpus, "embedded")
    merits = bm25(chunks, "rare31")
    assert dict(again.search([query_words("rare31")], 1500)[0]) == {c: round(m, 6) for c, m in merits.items()}
    again.close()
    assert calls[0] == made == 4


def test_chunks_that_are_lost_on_the_way_are_noticed(home: Home, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = make_corpus(home, texts(60))
    monkeypatch.setattr("storage.word_index._texts", lambda home, corpus: iter([texts(60)[:59]]))
    with pytest.raises(IntegrityError, match="holds 59 chunks after loading, the corpus has 60"):
        opened(home, corpus, engine)
