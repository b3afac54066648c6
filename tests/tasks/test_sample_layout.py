"""Rows of samples made of columns: the same bytes and digests as rows made of dicts, whatever they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.chunk_tokens import write_chunk_tokens
from storage.digests import digest_json
from storage.errors import IntegrityError
from storage.home import Home
from storage.schemas import SAMPLES
from storage.tables import write_batches, write_table
from tasks.samples.layout import sample_row
from tasks.samples.origins import StoredChunks, TokenisedChunks, open_chunks
from tests.word_world import make_word_world, word_tokenizer

SEGMENT = ("kind", "root_id", "chunk_id", "doc_id", "start", "end", "source_start")
DEPENDENCY = ("root_id", "t", "position", "chunk_id", "distance", "entropy_before", "entropy_after", "gain")
number = st.integers(0, 2**31 - 1)
digest = st.text("0123456789abcdef", min_size=1, max_size=64)
nats = st.floats(0, 20, width=32)
segment = st.tuples(
    st.sampled_from(["root", "positive", "negative"]), st.none() | digest, st.none() | digest, digest, *[number] * 3
)
dependency = st.tuples(digest, number, number, digest, number, nats, nats, nats)
sample = st.tuples(
    st.lists(st.integers(0, 300_000), max_size=50),
    st.lists(segment, max_size=5),
    st.lists(dependency, max_size=4),
)
Structs = list[tuple[object, ...]]
Sample = tuple[list[int], Structs, Structs]


def as_dicts(ids: list[int], segments: Structs, dependencies: Structs) -> dict[str, Any]:
    """The row as a dict, its digest by the one canonical form of JSON."""
    named = [dict(zip(SEGMENT, fields, strict=True)) for fields in segments]
    return {
        "sample_id": digest_json([ids, named]),
        "input_ids": ids,
        "length": len(ids),
        "segments": named,
        "dependencies": [dict(zip(DEPENDENCY, fields, strict=True)) for fields in dependencies],
    }


@given(samples=st.lists(sample, max_size=8), rows=st.integers(1, 4), units=st.integers(1, 400))
@settings(max_examples=40, deadline=None)
def test_columns_give_the_bytes_that_dicts_give(
    tmp_path_factory: pytest.TempPathFactory, samples: list[Sample], rows: int, units: int
) -> None:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("storage.tables.ROWS_PER_GROUP", rows)
        patch.setattr("storage.tables.UNITS_PER_GROUP", units)
        expected = write_table(home, "a.parquet", SAMPLES, [as_dicts(*one) for one in samples])
        batches = (
            sample_row(np.array(ids, np.int32), *(tuple(zip(*rows, strict=True)) for rows in structs))
            for ids, *structs in samples
        )
        found = write_batches(home, "b.parquet", SAMPLES, batches)
    assert found == expected.model_copy(update={"uri": "b.parquet"})


def test_a_null_where_none_may_be_is_a_defect(tmp_path: Path) -> None:
    row = sample_row(np.array([1], np.int32), [], [])
    broken = row.set_column(0, SAMPLES.arrow.field(0), pa.array([None], pa.string()))
    with pytest.raises(ValueError, match="sample_id has a null"):
        write_batches(tmp_path, "a.parquet", SAMPLES, [broken])


def test_another_token_in_the_corpus_is_noticed_before_it_is_in_a_sample(home: Home) -> None:
    tokenizer = word_tokenizer(["w0", "w1"])
    world = make_word_world(home, tokenizer, [["w0 w1", "w1 w1"], ["w0 w0"]], [(0, 0, 1)])
    ref = write_chunk_tokens(home.path, "work/tokens.arrow", (("c", 0, [2, 3]) for _ in world.chunk_rows))
    manifest = {**world.corpus.manifest, "chunking": {"tokenizer": "its digest"}}
    corpus = world.corpus.model_copy(update={"tokens": ref, "manifest": manifest})
    opened = open_chunks(home, corpus, world.roots, lambda: tokenizer, "its digest")
    assert opened.spelled(0)[1].tolist() == [2, 3]
    opened.close()
    path = home / ref.uri
    path.write_bytes(path.read_bytes().replace(b"\x02\0\0\0\x03\0\0\0", b"\x02\0\0\0\x02\0\0\0"))
    with pytest.raises(IntegrityError, match=r"work/tokens\.arrow was changed"):
        open_chunks(home, corpus, world.roots, lambda: tokenizer, "its digest")
    other = open_chunks(home, corpus, world.roots, lambda: tokenizer, "another digest")
    assert other.spelled(0)[1].tolist() == [2, 3]
    other.close()


def test_stored_chunks_are_what_the_tokenizer_makes_of_their_texts(home: Home) -> None:
    tokenizer = word_tokenizer([f"w{n}" for n in range(60)], bos=True)
    paragraphs = [
        [" ".join(f"w{(7 * doc + 3 * p + k) % 60}" for k in range(4 + p)) for p in range(3)] for doc in range(9)
    ]
    world = make_word_world(home, tokenizer, paragraphs, [(0, 1, 1)])
    spelled = (
        (row["chunk_id"], row["doc"], tokenizer(row["text"], add_special_tokens=False)["input_ids"])
        for row in world.chunk_rows
    )
    stored = StoredChunks(home.path, write_chunk_tokens(home.path, "work/tokens.arrow", spelled))
    for counted in (True, False):
        made = TokenisedChunks(home, world.corpus, world.roots, tokenizer, counted=counted)
        for row in reversed(range(len(world.chunk_rows))):
            for chunks in (stored, made):
                chunks.expect([row])
            (name, ids), (expected, tokens) = stored.spelled(row), made.spelled(row)
            assert (name, ids.tolist()) == (expected, tokens.tolist())
            assert (stored.doc(row), stored.size(row)) == (made.doc(row), made.size(row))
        made.close()
    stored.close()
