"""What every command of the audit trail says of a version that is none, and of homes and campaigns that are not whole:
one line and the same words, whichever command is asked.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli import main
from storage.files import read_json, write_json
from storage.home import Home
from storage.versions import version_uri
from tasks.reporting.writing import campaign_path, round_path
from tasks.retention.collecting import collect
from tasks.retention.plan import Keep
from tests.reported_page import read_page
from tests.rounds import BuiltRound, build_round, build_rounds

Captured = pytest.CaptureFixture[str]
COMMANDS = {
    "audit": ["{}"],
    "trace": ["{}", "0"],
    "search": ["{}", "w1"],
    "diff": ["{}", "world:2"],
    "report": ["{}"],
    "export": ["{}", "--to", "{out}"],
    "push": ["{}", "--repo", "somebody/samples"],
}


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A wide terminal, a token that is never sent; the handler that the command line installs ends with the test."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("HF_TOKEN", "hf_nobodys")
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[BuiltRound]:
    return build_rounds(Home.open(tmp_path_factory.mktemp("made") / "home"), 2)


@pytest.fixture
def home(made: list[BuiltRound], tmp_path: Path) -> Home:
    shutil.copytree(made[0].home.path, tmp_path / "copy")
    return Home.open(tmp_path / "copy")


def run(home: Home, capsys: Captured, *words: str) -> tuple[int, str, str]:
    code = main(["--home", str(home.path), *words])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def asked(home: Home, capsys: Captured, version: str, *commands: str) -> dict[str, str]:
    """The one line that each command (all, without names) says of a version, after exit code 2 and nothing else."""
    said = {}
    for command in commands or COMMANDS:
        given = [word.format(version, out=home.path.parent / "out") for word in COMMANDS[command]]
        code, out, err = run(home, capsys, command, *given)
        assert (code, out, len(err.splitlines())) == (2, "", 1), (command, out, err)
        said[command] = err
    assert not (home.path.parent / "out").exists()
    return said


def test_a_version_that_is_none_is_said_alike_by_all(made: list[BuiltRound], home: Home, capsys: Captured) -> None:
    one, two = made
    for command, line in asked(home, capsys, "0000aaaa").items():
        assert "no dataset version begins with 0000aaaa" in line, (command, line)
    for name, told in (("world:7", "'world' has no round 7 (finished: 1, 2)"), ("other:1", "is no campaign 'other'")):
        for command, line in asked(home, capsys, name, "audit", "report").items():
            assert told in line, (command, line)
    twin = home / f"versions/{one.version[:8]}{'0' * 8}"
    shutil.copytree(home / version_uri(one.version), twin)
    for command, line in asked(home, capsys, one.version[:8], "audit", "report", "export").items():
        assert "is ambiguous" in line, (command, line)
    (twin / "manifest.json").unlink()
    for command, line in asked(home, capsys, twin.name, "audit", "search", "report", "export").items():
        assert f"{twin.name} has no manifest, that round was not finished" in line, (command, line)
    shutil.rmtree(twin)
    collect(home, Keep(rounds=1, versions=True), apply=True)
    for command, line in asked(home, capsys, one.version[:12]).items():
        assert "was removed by gc on 20" in line, (command, line)
    assert run(home, capsys, "trace", two.version[:12], "0")[0] == 0


def test_a_home_that_was_moved_answers_as_before(made: list[BuiltRound], home: Home, capsys: Captured) -> None:
    for words in (
        ["audit", "world"],
        ["trace", "2", "0:3"],
        ["search", "1", "w1", "--limit", "1"],
        ["takedown", "world#2"],
        ["diff", "1", "2"],
    ):
        here = run(made[0].home, capsys, *words)
        assert run(home, capsys, *words)[:2] == here[:2], words
        assert here[0] == 0
    assert run(home, capsys, "report", "2")[0] == 0
    assert str(made[0].home.path) not in round_path(home, made[1].version).read_text()


def test_a_checkpoint_that_stayed_on_another_machine_is_said_and_the_rest_is_shown(
    made: list[BuiltRound], home: Home, capsys: Captured
) -> None:
    policy = made[0].manifest.policy
    path = home / f"policies/{policy[:16]}/policy.json"
    write_json(path, read_json(path) | {"folder": "/another/machine/policy"})
    code, text, _ = run(home, capsys, "trace", "1", "0:3")
    assert code == 0
    assert "/another/machine/policy of policy" in text
    assert "does not exist any more" in text
    assert run(home, capsys, "report", "1")[0] == 0
    assert "tokenizer is not in this home" in read_page(round_path(home, made[0].version)).text
    for words in (["search", "1", "w1"], ["takedown", "world#2"], ["diff", "1", "2"]):
        assert run(home, capsys, *words)[0] == 0, words
    code, text, _ = run(home, capsys, "audit", "1", "--quiet")
    assert "/another/machine/policy" in text


def test_a_home_of_another_format_is_one_line(home: Home, capsys: Captured) -> None:
    (home / "home.json").write_text('{"format": 99}\n')
    for words in (["audit", "1"], ["takedown", "world#2"], ["report"]):
        code, out, err = run(home, capsys, *words)
        assert (code, out, len(err.splitlines())) == (2, "", 1), words
        assert "has format 99, this version reads" in err


def test_a_campaign_with_an_unfinished_round_is_answered_as_far_as_it_is(
    made: list[BuiltRound], home: Home, capsys: Captured
) -> None:
    record = read_json(home / "campaigns/world.json")
    record["rounds"][-1]["next_policy"] = None
    write_json(home / "campaigns/world.json", record)
    build_round(home, 2, manifest_changes={"round": 3})  # published; no campaign says so yet
    code, text, _ = run(home, capsys, "audit", "world", "--quiet")
    assert (code, "round 2 is built and no policy was trained on it yet" in text) == (0, True)
    assert run(home, capsys, "report")[0] == 0
    page = read_page(campaign_path(home, "world"))
    assert list(page.column("The rounds, from roots", "Policy")) == ["Round 1", "Round 2"]
    for line in asked(home, capsys, "world:3", "audit", "trace").values():
        assert "campaign 'world' has no round 3 (finished: 1, 2)" in line
    assert run(home, capsys, "trace", made[1].version[:10], "0")[0] == 0


def test_an_empty_round_is_reported_audited_and_exported_and_has_no_token(
    made: list[BuiltRound], home: Home, capsys: Captured
) -> None:
    corpus, policy = made[0].manifest.corpus, made[0].manifest.policy
    empty = build_round(home, corpus=corpus, policy=policy, change=lambda tables: tables["samples"][0].clear())
    name, out = empty.version[:12], home.path.parent / "out"
    assert run(home, capsys, "report", name)[0] == 0
    assert "no sample" in read_page(round_path(home, empty.version)).text.lower()
    assert run(home, capsys, "export", name, "--to", str(out))[0] == 0
    assert run(home, capsys, "audit", str(out), "--quiet")[0] == 0
    assert "holds 'w1'" in run(home, capsys, "search", name, "w1")[1]
    code, _, err = run(home, capsys, "trace", name, "0")
    assert (code, "has no samples" in err) == (2, True)
