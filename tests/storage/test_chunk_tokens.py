"""The tokens of a corpus's chunks: what was written is found by row, and a file that is none is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.chunk_tokens import ROWS_PER_BATCH, ChunkTokens, TokenRow, are_chunk_tokens, write_chunk_tokens
from storage.errors import IntegrityError
from storage.refs import Ref

rows = st.lists(
    st.tuples(
        st.text("0123456789abcdef", min_size=1, max_size=8),
        st.integers(0, 2**31 - 1),
        st.lists(st.integers(0, 300_000), max_size=9),
    ),
    min_size=1,
    max_size=40,
)


@given(rows=rows, batch=st.integers(1, 50), asked=st.lists(st.integers(0, 39), max_size=20))
@settings(max_examples=40, deadline=None)
def test_every_row_is_found(
    tmp_path_factory: pytest.TempPathFactory, rows: list[TokenRow], batch: int, asked: list[int]
) -> None:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("storage.chunk_tokens.ROWS_PER_BATCH", batch)
        ref = write_chunk_tokens(home, "work/tokens.arrow", rows)
        assert ref == write_chunk_tokens(home, "work/again.arrow", iter(rows)).model_copy(update={"uri": ref.uri})
        tokens = ChunkTokens(home, ref)
        for number in reversed(range(len(rows))):
            name, doc, ids = rows[number]
            found, spelled = tokens.spelled(number)
            assert (found, tokens.doc(number)) == (name, doc)
            assert (tokens.size(number), spelled.tolist()) == (len(ids), ids)
        wanted = [number % len(rows) for number in asked]
        docs, sizes = tokens.measured(np.array(wanted, dtype=np.int64))
        assert docs.tolist() == [rows[number][1] for number in wanted]
        assert sizes.tolist() == [len(rows[number][2]) for number in wanted]
        for outside in (-1, len(rows)):
            with pytest.raises(IndexError):
                tokens.spelled(outside)
            with pytest.raises(IndexError):
                tokens.measured(np.array([0, outside]))
        tokens.close()


def test_more_rows_than_a_batch_holds(tmp_path: Path) -> None:
    ref = write_chunk_tokens(tmp_path, "t.arrow", ((str(n), n, [n, n + 1]) for n in range(ROWS_PER_BATCH + 3)))
    tokens = ChunkTokens(tmp_path, ref)
    for row in (0, ROWS_PER_BATCH - 1, ROWS_PER_BATCH, ROWS_PER_BATCH + 2):
        assert tokens.spelled(row)[1].tolist() == [row, row + 1]
        assert tokens.doc(row) == row


@pytest.mark.parametrize("content", [b"", b"ARROW1\0\0 and nothing more", b"PAR1" * 40])
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    ref = Ref(uri="t.arrow", sha256="0" * 64, rows=1, table="tokens")
    (tmp_path / "t.arrow").write_bytes(content)
    assert not are_chunk_tokens(tmp_path / "t.arrow")
    with pytest.raises(IntegrityError, match=r"t\.arrow can't be read"):
        ChunkTokens(tmp_path, ref)


def test_a_missing_file_is_an_integrity_error(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"t\.arrow can't be read"):
        ChunkTokens(tmp_path, Ref(uri="t.arrow", sha256="0" * 64, rows=1, table="tokens"))
