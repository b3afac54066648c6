"""An ingest as a whole: nothing is lost, nothing is done twice, and two homes agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from flows.ingest import ingest
from models.policy import load_tokenizer
from storage.chunk_tokens import ChunkTokens
from storage.corpora import Corpus, open_corpus
from storage.digests import digest_json, digest_text
from storage.errors import InputError, QuarantineError
from storage.home import Home
from storage.schemas import VECTORS
from storage.tables import check_ref, read_table, read_tables
from storage.vectors import IndexConfig, ensure_index
from tasks.corpus.chunking import ChunkingConfig
from tasks.corpus.contamination import ContaminationConfig
from tasks.corpus.ingestion import IngestConfig
from tasks.corpus.normalisation import NormalisationConfig
from tasks.corpus.overlap import shared_run
from tasks.corpus.python_corpus import PythonCorpusConfig
from tasks.corpus.quarantine import QuarantineConfig
from tasks.corpus.splitting import SplitConfig
from tests.small_embedder import DIGEST, SmallEmbedder, use_small_embedder
from tests.tiny_policies import tiny_policy

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> SmallEmbedder:
    return use_small_embedder(monkeypatch)


def sentence(number: int, draw: int) -> str:
    words = [digest_text(f"{number} {draw} {i}")[: 2 + i % 7] for i in range(12)]
    return " ".join(words).capitalize() + "."


def document(number: int) -> str:
    paragraphs = [" ".join(sentence(number, 10 * p + s) for s in range(4)) for p in range(5)]
    return "\n\n".join([f"# Document {number}", *paragraphs])


def write_rows(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def row(text: str, **more: Any) -> bytes:
    return json.dumps({"text": text, **more}).encode()


def config(path: Path, scratch: Path, **changes: Any) -> IngestConfig:
    folder = scratch / "policy"
    if not folder.exists():
        tiny_policy(folder)
    values: dict[str, Any] = {
        "name": "small",
        "paths": (str(path),),
        "chunking": ChunkingConfig(max_tokens=150, min_tokens=30, tokenizer=str(folder)),
        "split": SplitConfig(pretrain=0.2, heldout=0.2, probe=0.2),
        "quarantine": QuarantineConfig(limit=0.5),
    }
    return IngestConfig(**{**values, **changes})


def thousand_duplicates_and_all_that_breaks() -> list[bytes]:
    good = [row(document(n), title=f"title {n}") for n in range(40)]
    broken = [
        b'{"text": "cut in the mid',
        b'{"text": null}',
        row(""),
        row("   \n\n  "),
        b'{"text": "invalid \xff UTF-8"}',
        b'{"text": "lone \\ud83d surrogate"}',
        b'{"text": "' + b"x" * 10_000_000 + b'"}',
        b'{"title": "no text"}',
        row("too short"),
    ]
    return [*good, *broken, *[good[3]] * 1_000, row(document(7).replace("Document 7", "Document seven"))]


def test_broken_rows_are_found_again_with_their_reason(home: Home, tmp_path: Path, small: SmallEmbedder) -> None:
    path = write_rows(tmp_path / "rows.jsonl", thousand_duplicates_and_all_that_breaks())
    digest = ingest(str(home.path), config(path, tmp_path))
    corpus = open_corpus(home, "small")
    assert corpus.digest == digest
    counts = corpus.manifest["counts"]
    assert counts["rows"] == 1_050 == counts["documents"] + corpus.quarantine.rows
    assert {reason: n for reason, n in counts["quarantine"].items() if n} == {
        "broken-json": 1,
        "missing-column": 1,
        "null-text": 1,
        "not-utf8": 1,
        "lone-surrogate": 1,
        "too-long": 1,
        "too-short": 1,
        "empty": 2,
        "duplicate": 1_000,
        "near-duplicate": 1,
    }
    refused = read_table(home.path, corpus.quarantine)
    assert refused.filter(reason="too-long")["row"].to_list() == [46]
    assert refused.filter(reason="near-duplicate")["detail"][0].endswith("alike to rows.jsonl#7")
    assert set(refused["source"]) == {"rows.jsonl"}
    assert refused.n_unique(["source", "row"]) == len(refused)


def test_the_tables_agree_with_each_other(home: Home, tmp_path: Path, small: SmallEmbedder) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [row(document(n), title=f"title {n}") for n in range(60)])
    ingest(str(home.path), config(path, tmp_path))
    corpus = open_corpus(home, "small")
    for ref in corpus.refs:
        check_ref(home.path, ref)
    documents, chunks = read_table(home.path, corpus.documents), read_table(home.path, corpus.chunks)
    vectors = read_tables(home.path, corpus.vectors, VECTORS)
    assert set(documents["part"]) == {"pretrain", "screen", "probe", "heldout"}
    assert all(digest_text(d["text"]) == d["doc_id"] for d in documents.rows(named=True))
    for chunk in chunks.rows(named=True):
        owner = documents.row(chunk["doc"], named=True)
        assert owner["part"] == "screen"
        assert owner["text"][chunk["char_start"] : chunk["char_end"]] == chunk["text"]
        assert chunk["chunk_id"] == digest_json([owner["doc_id"], chunk["char_start"], chunk["char_end"]])
        assert 30 <= chunk["tokens"] <= 150
        assert len(chunk["text"].split()) + 2 <= small.limit
    assert corpus.tokens is not None
    stored, tokenizer = ChunkTokens(home.path, corpus.tokens), load_tokenizer(tmp_path / "policy")
    for number, chunk in enumerate(chunks.rows(named=True)):
        name, ids = stored.spelled(number)
        assert ids.tolist() == tokenizer(chunk["text"], add_special_tokens=False)["input_ids"]
        assert (name, stored.doc(number)) == (chunk["chunk_id"], chunk["doc"])
        assert stored.size(number) == chunk["tokens"]
    assert set(chunks["doc"]) == set(documents.with_row_index().filter(part="screen")["index"])
    assert vectors["chunk"].to_list() == list(range(len(chunks)))
    assert vectors["truncated"].sum() == 0
    index = ensure_index(home, corpus, IndexConfig())
    own = index.search(small.encode(chunks["text"].to_list(), "query"), 1)
    index.close()
    texts = chunks["text"].to_list()
    assert all(texts[hits[0].chunk] == text for hits, text in zip(own, texts, strict=True))


def test_a_second_run_does_no_work_and_another_home_agrees(home: Home, tmp_path: Path, small: SmallEmbedder) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [row(document(n), title=f"title {n}") for n in range(30)])
    settings = config(path, tmp_path)
    digest = ingest(str(home.path), settings)
    embedded, journal = small.embedded, (home / "journal.jsonl").read_text()
    assert ingest(str(home.path), settings) == digest
    assert small.embedded == embedded
    assert (home / "journal.jsonl").read_text() == journal
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / "rows.jsonl")
    assert (
        ingest(str(tmp_path / "other"), settings.model_copy(update={"name": "other", "paths": (str(moved),)})) == digest
    )
    path.write_bytes(moved.read_bytes() + row(document(99)) + b"\n")
    assert ingest(str(home.path), settings) != digest


def test_a_run_that_was_stopped_embeds_no_shard_twice(
    home: Home, tmp_path: Path, small: SmallEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [row(document(n), title=f"title {n}") for n in range(30)])
    settings = config(path, tmp_path, chunks_per_shard=50, split=SplitConfig(heldout=0, probe=0))
    real, calls = SmallEmbedder.encode, [0]

    def stops(self: SmallEmbedder, *arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    monkeypatch.setattr(SmallEmbedder, "encode", stops)
    with pytest.raises(KeyboardInterrupt):
        ingest(str(home.path), settings)
    assert not list((home / "corpora").glob("*/corpus.json"))
    monkeypatch.setattr(SmallEmbedder, "encode", real)
    digest = ingest(str(home.path), settings)
    corpus = open_corpus(home, "small")
    assert len(corpus.vectors) >= 3
    assert small.embedded == corpus.chunks.rows
    assert ingest(str(tmp_path / "other"), settings) == digest


def test_held_out_documents_share_no_run_with_the_others(home: Home, tmp_path: Path, small: SmallEmbedder) -> None:
    quoted = sentence(1_000, 0) + " " + sentence(1_000, 1)
    texts = [document(n) + ("\n\n" + quoted if n % 2 else "") for n in range(40)]
    path = write_rows(tmp_path / "rows.jsonl", [row(text, title=f"title {n}") for n, text in enumerate(texts)])
    ingest(str(home.path), config(path, tmp_path))
    corpus = open_corpus(home, "small")
    documents = read_table(home.path, corpus.documents)
    heldout = documents.filter(part="heldout")
    others = documents.filter(pl.col("part") != "heldout")["text"].to_list()
    assert not any(shared_run(text, other) for text in heldout["text"] for other in others)
    counts = corpus.manifest["counts"]
    assert counts["heldout_changed"] > 0
    removed = [int(json.loads(m).get("removed_characters", 0)) for m in heldout["metadata"]]
    assert sum(removed) == counts["heldout_removed_characters"] > 0
    assert any(quoted in other for other in others)


def test_documents_that_quote_a_benchmark_are_refused(home: Home, tmp_path: Path, small: SmallEmbedder) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [row(document(n), title=f"title {n}") for n in range(20)])
    benchmark = tmp_path / "bench.json"
    benchmark.write_text(json.dumps([{"context": sentence(5, 12)}, {"context": "short"}]))
    ingest(str(home.path), config(path, tmp_path, contamination=ContaminationConfig(paths=(str(benchmark),))))
    corpus = open_corpus(home, "small")
    refused = read_table(home.path, corpus.quarantine)
    assert refused["reason"].to_list() == ["contaminated"]
    assert refused["row"].to_list() == [5]
    assert corpus.manifest["counts"]["benchmark_too_short"] == 1
    assert [name for name, _ in corpus.manifest["source"]["benchmarks"]] == ["bench.json"]


def test_too_many_bad_rows_stop_the_run_and_can_be_looked_at(home: Home, tmp_path: Path, small: SmallEmbedder) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [row(document(n)) for n in range(9)] + [b"broken"])
    with pytest.raises(
        QuarantineError, match=r"1 of 10 rows were refused \(10\.0%, limit 5\.0%\): broken-json 1"
    ) as caught:
        ingest(str(home.path), config(path, tmp_path, quarantine=QuarantineConfig()))
    table = next(word for word in caught.value.hint.replace(",", " ").split() if word.endswith(".parquet"))
    assert pl.read_parquet(home / table)["reason"].to_list() == ["broken-json"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the corpus is empty"),
        ([row("a b c")] * 2, "every one of 2 rows was refused"),
        ([row("x " * 30)], "no chunk to index"),
    ],
)
def test_nothing_to_index_is_a_clear_error(
    home: Home, tmp_path: Path, small: SmallEmbedder, lines: list[bytes], message: str
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", lines)
    split, limit = SplitConfig(heldout=0, probe=0), QuarantineConfig(limit=1)
    chunking = config(path, tmp_path).chunking.model_copy(update={"min_tokens": 140})
    with pytest.raises(InputError, match=message):
        ingest(str(home.path), config(path, tmp_path, split=split, quarantine=limit, chunking=chunking))


def test_the_installed_packages_are_a_corpus(home: Home, tmp_path: Path, small: SmallEmbedder) -> None:
    settings = config(
        tmp_path, tmp_path, paths=(), python=PythonCorpusConfig(kinds=("api",), budget_characters=150_000, folders=3)
    )
    ingest(str(home.path), settings)
    corpus = open_corpus(home, "small")
    assert corpus.manifest["source"]["packages"]["python"]
    assert corpus.embedder_digest == DIGEST
    assert _real_words(home, corpus) > 100


def _real_words(home: Home, corpus: Corpus) -> int:
    return len(
        {word for text in read_table(home.path, corpus.documents)["text"] for word in text.split() if word.isalpha()}
    )


@pytest.mark.parametrize("values", [{"paths": ("a",), "python": {}}, {"paths": ("a",), "name": "../b"}, {"path": "a"}])
def test_a_configuration_that_can_not_be_right_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        IngestConfig.model_validate(values)


def test_a_name_alone_means_the_corpus_that_is_there(home: Home, tmp_path: Path, small: SmallEmbedder) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [row(document(n), title=f"title {n}") for n in range(10)])
    digest = ingest(str(home.path), config(path, tmp_path))
    assert ingest(str(home.path), IngestConfig(name="small")) == digest
    with pytest.raises(InputError, match="corpus 'other' is not in this home"):
        ingest(str(home.path), IngestConfig(name="other"))


def test_the_text_is_normalised_before_it_has_an_identity(home: Home, tmp_path: Path, small: SmallEmbedder) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [row(document(1)), row(document(1).replace("\n", "  \r\n") + "\x00")])
    split = SplitConfig(heldout=0, probe=0)
    ingest(str(home.path), config(path, tmp_path, split=split, normalisation=NormalisationConfig(min_characters=10)))
    assert open_corpus(home, "small").manifest["counts"]["quarantine"]["duplicate"] == 1
