"""A corpus has one digest wherever it was made, and no damage goes unnoticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage.corpora import Corpus, corpus_to_read, list_corpora, name_corpus, open_corpus, publish_corpus
from storage.errors import ConfigError, InputError, IntegrityError
from storage.home import Home
from storage.refs import Ref
from storage.schemas import CHUNKS, DOCUMENTS, QUARANTINE, VECTORS
from storage.tables import check_ref, write_table


def tables(home: Home, text: str = "a text") -> dict[str, Ref]:
    document = dict.fromkeys(("doc_id", "source", "title", "group", "part", "metadata"), "x") | {"text": text}
    vector = {"chunk": 0, "truncated": 0, "vector": [1.0, 0.0]}
    return {
        "documents": write_table(home.path, "work/d.parquet", DOCUMENTS, [document]),
        "chunks": write_table(home.path, "work/c.parquet", CHUNKS, []),
        "quarantine": write_table(home.path, "work/q.parquet", QUARANTINE, []),
        "vectors-00000": write_table(home.path, "work/v0.parquet", VECTORS, [vector]),
        "vectors-00001": write_table(home.path, "work/v1.parquet", VECTORS, [vector | {"chunk": 1}]),
    }


def made(home: Home, text: str = "a text", name: str = "small") -> Corpus:
    digest = publish_corpus(home, {"embedder": {"digest": "e" * 64, "dimension": 2}}, tables(home, text))
    name_corpus(home, name, digest)
    return open_corpus(home, digest)


def test_two_homes_and_two_names_agree_on_the_digest(home: Home, tmp_path: Path) -> None:
    other = made(Home.open(tmp_path / "elsewhere"), name="other")
    assert made(home).digest == other.digest
    assert made(home, text="another text").digest != other.digest


def test_a_corpus_opens_by_name_digest_and_beginning(home: Home) -> None:
    corpus = made(home)
    for key in ("small", corpus.digest, corpus.digest[:16], corpus.digest[:6], corpus.digest[:40]):
        assert open_corpus(home, key) == corpus.model_copy(update={"name": "small"})
    assert list_corpora(home) == [corpus]
    assert [ref.uri for ref in corpus.vectors] == [f"{corpus.folder}/vectors-{i:05d}.parquet" for i in range(2)]
    for ref in corpus.refs:
        check_ref(home.path, ref)


@pytest.mark.parametrize("key", ["nowhere", "", "ab", "../names", "0" * 64, "small/../small"])
def test_an_unknown_corpus_is_a_clear_error(home: Home, key: str) -> None:
    made(home)
    with pytest.raises(InputError, match=r"is not in this home \(there: small\)") as caught:
        open_corpus(home, key)
    assert "policylong ingest" in caught.value.hint


def test_a_changed_manifest_is_noticed(home: Home) -> None:
    corpus = made(home)
    path = home / corpus.folder / "corpus.json"
    manifest = json.loads(path.read_text())
    manifest["embedder"]["dimension"] = 3
    path.write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match=r"corpus.json was changed"):
        open_corpus(home, "small")


def test_publishing_again_puts_a_damaged_file_right(home: Home) -> None:
    corpus = made(home)
    target = home / corpus.documents.uri
    target.unlink()
    target.write_bytes(b"damaged")
    assert made(home).digest == corpus.digest
    check_ref(home.path, corpus.documents)


def test_a_damaged_table_is_not_published(home: Home) -> None:
    refs = tables(home)
    (home / refs["documents"].uri).write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match=r"d.parquet was changed"):
        publish_corpus(home, {}, refs)
    assert list_corpora(home) == []


@pytest.mark.parametrize("table", ["documents", "chunks"])
def test_a_table_that_was_changed_is_noticed_before_it_is_read(home: Home, table: str) -> None:
    corpus = made(home)
    assert corpus_to_read(home, "small") == open_corpus(home, "small")
    path = home / getattr(corpus, table).uri
    before = path.read_bytes()
    path.unlink()
    path.write_bytes(before[:-9] + bytes([before[-9] ^ 1]) + before[-8:])
    with pytest.raises(IntegrityError, match=rf"{table}.parquet was changed") as caught:
        corpus_to_read(home, "small")
    assert "policylong ingest" in caught.value.hint


@pytest.mark.parametrize("name", ["", "a b", "../a", ".hidden", "a/b"])
def test_a_name_is_a_plain_word(home: Home, name: str) -> None:
    with pytest.raises(ConfigError, match="can't be a corpus name"):
        name_corpus(home, name, "0" * 64)
