"""The commands of the audit trail as a user meets them: what they print, as text and as JSON, and what they refuse."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from flows.cli import main
from flows.views.trace import marked, trace_lines
from storage.home import Home
from tasks.provenance.traces import Trace
from tasks.provenance.tracing import trace
from tasks.reporting.visible import visible, visible_line
from tests.rounds import BuiltRound, build_round, build_rounds
from tests.world_by_hand import documents

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "[bold]a[/bold] \x1b[31mred\x1b[0m \u202eright to left\u2066 \x07 :smile: [link=x]y[/link] \u2028\x9b1m"


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A wide terminal; the handler that the command line installs ends with the test."""
    monkeypatch.setenv("COLUMNS", "160")
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> list[BuiltRound]:
    return build_rounds(Home.open(tmp_path_factory.mktemp("rounds") / "home"), 2)


def run(home: Home, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["--home", str(home.path), *words])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_token_in_a_positive_tells_the_whole_story(
    rounds: list[BuiltRound], capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = rounds
    code, text, _ = run(two.home, capsys, "trace", "2", "0:3")
    (sample,) = two.tables["samples"][0]
    dependency = sample["dependencies"][0]
    assert code == 0
    for told in (
        two.version[:12], sample["sample_id"][:12], "positive", "world#0", "document 0", "⟦w21⟧",
        f"root {dependency['root_id'][:12]} at t = 5 (token {dependency['position']})",
        f"{dependency['distance']} tokens behind it: helped", "query: around 5", "rank 0, cosine 0.900",
        "entropy 3.000 → 0.750 nats", "ΔI 0.750", "nll 2.500 → 1.000", "placebo ΔI 0.050",
        f"trained on version {one.version[:12]}", "base model", two.manifest.config_digest[:12], "entropy 1",
    ):  # fmt: skip
        assert told in text, told


def test_root_tokens_negatives_separators_and_whole_samples(
    rounds: list[BuiltRound], capsys: pytest.CaptureFixture[str]
) -> None:
    home = rounds[0].home
    (sample,) = rounds[0].tables["samples"][0]
    first = sample["segments"][0]
    _, text, _ = run(home, capsys, "trace", "1", f"0:{sample['dependencies'][0]['position']}")
    assert "what helped these tokens" in text
    assert f"chunk {first['chunk_id'][:12]} (tokens 0-9)" in text
    assert "its threshold is 2.000 nats" in text
    _, text, _ = run(home, capsys, "trace", "1", "0:90")
    assert "none of the asked tokens lies above the threshold" in text
    _, text, _ = run(home, capsys, "trace", "1", "0:10-11")
    assert "separator, of no document" in text
    assert f"negative found beside positive {first['chunk_id'][:12]} (tokens 0-9)" in text
    assert "as a candidate it was found by" in text
    assert "found, not kept: gain-too-small" in text
    _, text, _ = run(home, capsys, "trace", "world:1", sample["sample_id"][:9])
    assert all(f" {s['start']}-{s['end'] - 1} " in text for s in sample["segments"])
    assert all(f" {d['position']} " in text for d in sample["dependencies"])


def test_json_has_everything_and_nothing_else_is_printed(
    rounds: list[BuiltRound], capsys: pytest.CaptureFixture[str]
) -> None:
    home = rounds[0].home
    code, text, _ = run(home, capsys, "trace", "1", "0:3", "--json")
    assert code == 0
    assert Trace.model_validate_json(text) == trace(home, "1", "0", "3")
    _, text, _ = run(home, capsys, "search", "1", "document 2", "--limit", "1", "--json")
    found = json.loads(text)
    assert (len(found["hits"]), found["more"], found["hits"][0]["matched"]) == (1, True, "title")
    _, text, _ = run(home, capsys, "takedown", "world#2", "--json")
    assert json.loads(text)["documents"] == [documents()[2]["doc_id"]]
    _, text, _ = run(home, capsys, "diff", "1", "2", "--json")
    found = json.loads(text)
    assert (found["first"], found["second"]) == tuple(built.version for built in rounds)
    assert {"stayed", "came", "went"} <= found["overlaps"][0].keys()


def test_search_takedown_and_diff_for_people(rounds: list[BuiltRound], capsys: pytest.CaptureFixture[str]) -> None:
    home = rounds[0].home
    (sample,) = rounds[0].tables["samples"][0]
    words = documents()[2]["text"].split(" ")[1:3]
    code, text, _ = run(home, capsys, "search", "1", "  ".join(words))
    assert code == 0
    assert f"sample 0 ({sample['sample_id'][:12]}) tokens 1-2 · positive, segment 0" in text
    assert " ".join(words) in text
    _, text, _ = run(home, capsys, "search", "1", "w", "--limit", "2")
    assert "2 shown, there are more: --limit 4" in text
    code, text, _ = run(home, capsys, "search", "1", "nowhere")
    assert (code, text) == (0, f"no sample of version {rounds[0].version[:12]} holds 'nowhere'\n")
    code, text, _ = run(home, capsys, "takedown", "world#2")
    assert code == 0
    for told in (
        "root: 20 tokens in 1 segment of 1 sample",
        "world:2",
        "part screen, 4 chunks",
        "samples 0",
        "policy ",
    ):
        assert told in text, told
    code, text, _ = run(home, capsys, "takedown", "no/such/file.txt")
    assert (code, len(text.splitlines())) == (0, 1)
    assert "none of the 2 versions of this home has a document 'no/such/file.txt'" in text
    code, text, _ = run(home, capsys, "diff", "1", "2")
    assert code == 0
    for told in ("round: 1 → 2", "all roots", "the probe set alone", "positives", "100.0 %", "distance (tokens)"):
        assert told in text, told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trace", "3", "0"], "has no round 3"),
        (["trace", "0000aaaa", "0"], "no dataset version begins with 0000aaaa"),
        (["trace", "1", "5"], "there is no sample 5"),
        (["trace", "1", "0:500"], "there is no token 500"),
        (["trace", "1", "0:x"], "names no token"),
        (["search", "world:9", "w1"], "has no round 9"),
        (["search", "1", " "], "the text is empty"),
        (["search", "1", "w1", "--limit", "0"], "Invalid value for '--limit'"),
        (["takedown", "abc"], "too short for a digest"),
        (["diff", "1", "elsewhere:1"], "there is no campaign 'elsewhere'"),
        (["diff", "1"], "Missing argument"),
    ],
)
def test_what_can_not_be_is_one_line_with_exit_code_2(
    words: list[str], told: str, rounds: list[BuiltRound], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(rounds[0].home, capsys, *words)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert told in err


def test_an_ambiguous_prefix_an_empty_round_and_no_home(
    rounds: list[BuiltRound], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(rounds[0].home.path, tmp_path / "copy")
    home, version = Home.open(tmp_path / "copy"), rounds[0].version
    shutil.copytree(home / f"versions/{version[:16]}", home / f"versions/{version[:8]}{'0' * 8}")
    code, _, err = run(home, capsys, "diff", version[:8], "2")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "is ambiguous" in err
    empty = build_round(home, change=lambda tables: tables["samples"][0].clear())
    code, _, err = run(home, capsys, "trace", empty.version[:12], "0")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "has no samples" in err
    code, _, err = run(Home(tmp_path / "nowhere"), capsys, "takedown", "0" * 16)
    assert (code, "there is no home" in err) == (2, True)
    assert not (tmp_path / "nowhere").exists()


def test_an_incomplete_takedown_is_exit_code_1(
    rounds: list[BuiltRound], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(rounds[0].home.path, tmp_path / "copy")
    home = Home.open(tmp_path / "copy")
    next((home / f"versions/{rounds[0].version[:16]}").glob("samples/*")).unlink()
    code, text, _ = run(home, capsys, "takedown", "world#2")
    assert code == 1
    assert "this report is incomplete" in text


def test_a_hostile_document_can_not_speak_to_the_terminal(rounds: list[BuiltRound]) -> None:
    found = trace(rounds[0].home, "1", "0", "3")
    (piece,) = found.pieces
    assert piece.origin is not None
    link = piece.links[0].model_copy(update={"query": HOSTILE, "before": HOSTILE, "token": HOSTILE, "context": HOSTILE})
    origin = piece.origin.model_copy(update={"source": HOSTILE, "title": HOSTILE})
    hostile = piece.model_copy(update={"text": HOSTILE, "before": HOSTILE, "origin": origin, "links": (link,)})
    whole = trace(rounds[0].home, "1", "0")
    listed = whole.model_copy(update={"segments": (origin,), "dependencies": (link,), "unknown": ()})
    for shown in (found.model_copy(update={"pieces": (hostile,)}), listed):
        out = io.StringIO()
        console = Console(file=out, width=400, force_terminal=False, color_system=None)
        for block in trace_lines(shown):
            console.print(block, highlight=False)
        text = out.getvalue()
        assert "[bold]a[/bold] \\x1b[31mred" in text
        assert "[link=x]y[/link]" in text
        assert not [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")]


@given(st.text())
def test_printable_text_has_no_controls_and_plain_text_stays(text: str) -> None:
    for lines in (True, False):
        shown = visible(text) if lines else visible_line(text)
        kept = "\n\t" if lines else ""
        assert all(c in kept or unicodedata.category(c)[0] != "C" for c in shown)
        assert lines or len(shown.splitlines()) <= 1
    plain = "".join(c for c in text if c.isprintable())
    assert visible(plain) == plain


def test_what_is_not_known_is_said_in_place_of_text() -> None:
    assert marked(None, None, None, "bold").plain == "the text is not known here"
    assert marked("a\n", "", "b", "bold").plain == "a\n⟦␣⟧b"


def test_tracing_loads_neither_torch_nor_prefect(rounds: list[BuiltRound]) -> None:
    script = (
        "import sys; from flows.cli import main\n"
        f"code = main(['--home', {str(rounds[0].home.path)!r}, 'trace', '1', '0:3'])\n"
        "print(code, sorted({'torch', 'transformers', 'prefect', 'mlflow'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "0 []"
    assert "⟦w" in shown.stdout
