"""``export``, ``audit FOLDER``, ``push`` and ``gc`` as a user meets them."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli import main
from flows.commands.retention import size_text
from storage.home import Home
from tasks.exporting.record import RECORD, UNFINISHED
from tests.rounds import BuiltRound, build_rounds

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A wide terminal, no token; the handler that the command line installs ends with the test."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> list[BuiltRound]:
    return build_rounds(Home.open(tmp_path_factory.mktemp("rounds") / "home"), 2)


def run(home: Path, capsys: Captured, *words: str) -> tuple[int, str, str]:
    code = main(["--home", str(home), *words])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_an_export_is_written_checked_and_found_damaged(
    rounds: list[BuiltRound], tmp_path: Path, capsys: Captured
) -> None:
    home, out = rounds[0].home.path, tmp_path / "out"
    code, text, _ = run(home, capsys, "export", "2", "--to", str(out), "--format", "jsonl")
    (sample,) = rounds[1].tables["samples"][0]
    assert code == 0
    for told in (rounds[1].version[:12], "as jsonl", f"1 samples, {sample['length']} tokens", "policylong audit"):
        assert told in text
    code, text, _ = run(home, capsys, "audit", str(out))
    assert code == 0
    assert f"export of {rounds[1].version[:12]}: " in text
    assert "0 failed, 0 not checkable" in text
    code, text, _ = run(tmp_path / "no-home", capsys, "audit", str(out), "--quiet")
    assert code == 0
    assert text.startswith("not-checkable · the content is the version's · there is no home")
    assert not (tmp_path / "no-home").exists()
    (out / "README.md").write_text("other")
    code, text, _ = run(home, capsys, "audit", str(out), "--json")
    assert code == 1
    found = json.loads(text)
    assert [f["file"] for f in found["findings"] if f["status"] == "failed"] == ["README.md"]
    code, _, error = run(home, capsys, "export", "1", "--to", str(out), "--format", "jsonl")
    assert (code, "holds an export of version" in error) == (2, True)
    code, text, _ = run(home, capsys, "export", "2", "--to", str(tmp_path / "json"), "--json")
    assert json.loads(text) == json.loads((tmp_path / "json" / RECORD).read_text())


def test_a_packing_in_other_tokens_says_what_changed(
    rounds: list[BuiltRound], tmp_path: Path, capsys: Captured
) -> None:
    home, out = rounds[0].home.path, tmp_path / "out"
    code, text, _ = run(
        home, capsys, "export", "1", "--to", str(out), "--format", "datasets", "--tokenizer", "embedded:quickstart"
    )
    assert code == 0
    assert "tokens of embedded:quickstart" in text
    assert "dependencies carried over" in text
    assert "samples have different lengths and are not padded" in text
    assert run(home, capsys, "audit", str(out))[0] == 0


def test_refusals_are_one_line(rounds: list[BuiltRound], tmp_path: Path, capsys: Captured) -> None:
    home = rounds[0].home.path
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / UNFINISHED).write_text(json.dumps({"version": rounds[0].version}))
    for words, code, told in (
        (("export", "9", "--to", str(tmp_path / "a")), 2, "has no round 9"),
        (("export", "1", "--to", str(home / "exports")), 2, "lies in the home"),
        (("export", "1", "--to", str(tmp_path / "a"), "--tokenizer", "./nowhere"), 3, "does not exist"),
        (("audit", str(tmp_path / "half")), 2, "was not finished"),
        (("push", "1", "--repo", "owner/name"), 2, "HF_TOKEN is not set"),
        (("push", "1", "--repo", "name"), 2, "names no repository"),
        (("gc", "--keep", "nobody"), 2, "there is no campaign 'nobody'"),
        (("gc", "--versions"), 2, "--keep CAMPAIGN or --keep-rounds N"),
    ):
        found, _, error = run(home, capsys, *words)
        assert (found, told in error, len(error.strip().splitlines())) == (code, True, 1), (words, error)
    with rounds[0].home.lock("campaign-run-world"):
        code, _, error = run(home, capsys, "gc")
    assert (code, "campaign-run-world is held" in error) == (6, True)
    assert not (tmp_path / "a").exists()


def test_gc_lists_then_removes_and_the_audit_says_why(tmp_path: Path, capsys: Captured) -> None:
    home = Home.open(tmp_path / "home")
    one, two = build_rounds(home, 2)
    code, text, _ = run(home.path, capsys, "gc")
    assert (code, text.strip()) == (0, "nothing to remove")
    words = ("gc", "--keep-rounds", "1", "--versions")
    code, text, _ = run(home.path, capsys, *words)
    assert code == 0
    assert "nothing was removed: add --apply" in text
    assert f"versions/{one.version[:16]}" in text
    assert "round 1 of recipe policylong is not kept" in text
    code, text, _ = run(home.path, capsys, *words, "--json")
    plan = json.loads(text)
    assert (plan["applied"], [removal["kind"] for removal in plan["removals"]]) == (False, ["version"])
    code, text, _ = run(home.path, capsys, *words, "--apply")
    assert code == 0
    assert "files removed, " in text
    code, text, _ = run(home.path, capsys, "audit", "2", "--quiet")
    assert code == 0
    assert "not-checkable · parent of round 2" in text
    assert "removed by gc on 20" in text
    code, text, _ = run(home.path, capsys, "trace", two.version[:9], "0:3")
    assert (code, one.version[:12] in text) == (0, True)
    assert run(home.path, capsys, *words)[1].strip() == "nothing to remove"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (9 * 10**14, "900 TB")],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert size_text(count) == text
