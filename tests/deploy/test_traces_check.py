"""The comparison of traces with a literal reading, in short: it agrees on a small round, and sees what is wrong."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deploy.checks import traces
from deploy.checks.literal_texts import SegmentText, bare, byte_alphabet
from storage.errors import IntegrityError
from storage.home import Home
from tasks.provenance import tracing
from tasks.provenance.traces import Trace
from tests.published_world import PublishedWorld, publish_world
from tests.rounds import build_rounds
from tests.world import make_world


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedWorld:
    """A round, and beside its home the files that its documents may have been read from."""
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        world = publish_world(make_world(Home.open(folder / "home"), folder / "scratch", patch))
    texts = [document["text"] for document in world.world.documents]
    pq.write_table(pa.table({"body": [text.replace("\n", "\r\n") + " \t\n" for text in texts]}), folder / "world")
    pq.write_table(pa.table({"body": [text.replace("value", "other") for text in texts]}), folder / "other")
    return world


def run(published: PublishedWorld, *words: str) -> int:
    return traces.main(["--home", str(published.world.home.path), "--tokens", "25", *words, published.version[:8]])


def test_every_value_agrees_with_the_tables_and_the_original_text(
    published: PublishedWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    original = published.world.home.path.parent / "world"
    assert run(published, "--helped", "20", "--source", str(original), "--text-column", "body") == 0
    text = capsys.readouterr().out
    for line in ("candidates, verdicts, dependencies", "line of policies", "original text"):
        assert line in text
    assert "root" in text.splitlines()[-1]
    assert "positive" in text.splitlines()[-1]


def test_another_value_and_another_text_are_told_and_exit_with_1(
    published: PublishedWorld, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = published.world.home.path.parent / "other"
    other.rename(other.parent / "kept")
    (other.parent / "world").rename(other.parent / "right")
    (other.parent / "kept").rename(other.parent / "world")
    try:
        few = ("--tokens", "4", "--helped", "0", "--source")
        assert run(published, *few, str(other.parent / "world"), "--text-column", "body") == 1
    finally:
        (other.parent / "world").rename(other)
        (other.parent / "right").rename(other.parent / "world")
    assert "world#" in capsys.readouterr().out
    whole = tracing.trace

    def shifted(home: Home, version: str, sample: str, token: str | None = None) -> Trace:
        found = whole(home, version, sample, token)
        (piece,) = found.pieces
        moved = (piece.characters[0] + 1, piece.characters[1] + 1) if piece.characters else None
        return found.model_copy(update={"pieces": (piece.model_copy(update={"characters": moved}),)})

    monkeypatch.setattr(tracing, "trace", shifted)
    assert run(published, "--tokens", "2", "--helped", "0") == 1
    assert "pieces.characters: by hand" in capsys.readouterr().out


def test_what_can_not_be_read_is_one_line(
    published: PublishedWorld, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = published.world.home.path.parent
    few = ("--tokens", "2", "--helped", "0")
    assert run(published, *few, "--source", str(folder / "other"), "--text-column", "body") == 2
    assert "no document of these tokens came from other" in capsys.readouterr().err
    assert run(published, *few, "--source", str(folder / "world")) == 2
    assert "has no column 'text'" in capsys.readouterr().err
    assert traces.main(["--home", str(published.world.home.path), "feedfeed"]) == 2
    assert "0 versions" in capsys.readouterr().err
    build_rounds(home, 1)
    assert traces.main(["--home", str(home.path), "world:1"]) == 2
    assert "is not byte-level" in capsys.readouterr().err


def test_characters_are_those_whose_bytes_a_token_has() -> None:
    assert sorted(byte_alphabet().values()) == list(range(256))
    text = SegmentText("ab€é\nx", 1, 1, (b"\xe2", b"\x82\xac\xc3", b"\xa9", b"\nx"))
    assert [text.characters(place, place + 1) for place in range(4)] == [(2, 3), (2, 4), (3, 4), (4, 6)]
    assert text.around(1, 2, 1) == ("€é", "", "\n")
    with pytest.raises(IntegrityError, match="are not at character 0"):
        SegmentText("abc", 0, 0, (b"b",))
    assert bare("A\u0301 b\r\n\x07c") == "\u00c1bc"
