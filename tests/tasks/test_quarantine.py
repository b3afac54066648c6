"""The limit of refusals, and the one list of reasons."""

from __future__ import annotations

from typing import get_args

import pytest

from storage.errors import QuarantineError
from tasks.corpus.quarantine import REASONS, QuarantineConfig, Reason, Refusal, check_share, refused_row


def test_every_reason_is_explained() -> None:
    assert set(REASONS) == set(get_args(Reason))


def test_duplicates_do_not_count_against_the_limit() -> None:
    check_share({"duplicate": 900, "near-duplicate": 50, "empty": 5}, 1_000, QuarantineConfig(limit=0.005))


def test_over_the_limit_the_message_says_what_and_where() -> None:
    with pytest.raises(
        QuarantineError, match=r"6 of 100 rows were refused \(6\.0%, limit 5\.0%\): empty 4, not-utf8 2"
    ) as caught:
        check_share({"not-utf8": 2, "empty": 4, "duplicate": 50}, 100, QuarantineConfig(), "work/table.parquet")
    assert "work/table.parquet" in caught.value.hint


def test_what_is_kept_of_a_refused_text_is_short_and_printable() -> None:
    row = refused_row("file", 3, Refusal("empty", "d" * 500, "a\x00\x1b[31m\ud800\n" + "b" * 500))
    assert len(str(row["detail"])) == len(str(row["excerpt"])) == 200
    assert str(row["excerpt"]).encode()
    assert str(row["excerpt"]).isprintable()
