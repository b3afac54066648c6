"""The command line: help for a newcomer, fast; one line and an exit code for whatever is wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli import main

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "run ingest pretrain build train evaluate compare recipes policy audit trace search takedown diff status config"
    " doctor"
).split()
NESTED = [["policy", "add"], ["policy", "list"], ["policy", "show"], ["config", "show"], ["config", "list"]]


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A wide terminal; the handler that the command line installs ends with the test."""
    monkeypatch.setenv("COLUMNS", "120")
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def failed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and the one line of a command that must fail."""
    code = main(arguments)
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert len(lines) == 1, shown.err
    assert lines[0].startswith("error: ")
    assert shown.out == ""
    return code, lines[0]


def test_the_first_page_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    assert all(f" {command} " in page for command in COMMANDS)
    assert "--home" in page


@pytest.mark.parametrize("words", [*([command] for command in COMMANDS), *NESTED], ids=" ".join)
def test_every_command_has_a_page(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    assert f"policylong {' '.join(words)}" in capsys.readouterr().out


def test_help_loads_no_heavy_library() -> None:
    script = (
        "import sys; from flows.cli import main; main(['run', '--help'])\n"
        "print(sorted({'torch', 'transformers', 'prefect', 'mlflow', 'polars', 'pyarrow'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


def test_an_unknown_preset_names_those_there_are(home_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = failed(["run", "--preset", "quickest", "--home", str(home_path)], capsys)
    assert code == 2
    assert "quickest" in line
    assert "quickstart" in line
    assert not home_path.exists()


def test_an_unknown_key_is_named_with_its_file(
    home_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text("corpus: {python: {}}\nbuild: {verification: {epsilom: 0.4}}\n")
    code, line = failed(["--home", str(home_path), "run", "--preset", str(preset)], capsys)
    assert code == 2
    assert line.startswith("error: mine.yaml: build.verification.epsilom: is not an option.")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("build.rounds=0", "build.rounds: Input should be greater than or equal to 1"),
        ("build.speed=fast", "build.speed: is not an option"),
        ("build", "is not KEY=VALUE"),
        ("description.text=1", "description is not a section"),
        ("build.rounds=[", "is not a value"),
    ],
)
def test_a_change_that_can_not_be_is_named(
    change: str, told: str, home_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = failed(["run", "--home", str(home_path), "--set", change], capsys)
    assert code == 2
    assert told in line


def test_a_broken_preset_is_one_line(home_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = tmp_path / "broken.yaml"
    preset.write_text("build: {rounds: 2")
    code, line = failed(["run", "--home", str(home_path), "-p", str(preset)], capsys)
    assert code == 2
    assert "broken.yaml" in line


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["ingest", "gone.jsonl"], 2, "gone.jsonl does not exist"),
        (["ingest"], 2, "nothing to ingest"),
        (["policy", "add", "gone"], 3, "policy folder gone does not exist"),
        (["audit", "1"], 2, "there is no home"),
        (["policy", "list"], 2, "there is no home"),
        (["fly"], 2, "No such command 'fly'"),
        (["run", "--fast"], 2, "No such option"),
        (["audit"], 2, "Missing argument"),
    ],
)
def test_what_is_missing_is_one_line(
    arguments: list[str], code: int, told: str, home_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, line = failed(["--home", str(home_path), *arguments], capsys)
    assert (found, told in line) == (code, True), line


def test_a_home_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "home").write_text("")
    code, line = failed(["--home", str(tmp_path / "home"), "policy", "add", str(tmp_path)], capsys)
    assert code == 2
    assert "is a file" in line


def test_the_home_may_be_given_after_the_command_or_by_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLICYLONG_HOME", str(tmp_path / "a"))
    assert main(["status"]) == 0
    assert f"no home in {tmp_path / 'a'} yet" in capsys.readouterr().out
    assert main(["status", "--home", str(tmp_path / "b")]) == 0
    assert f"no home in {tmp_path / 'b'} yet" in capsys.readouterr().out
    assert main(["status", f"--home={tmp_path / 'c'}"]) == 0
    assert f"no home in {tmp_path / 'c'} yet" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_says_how_to_carry_on(
    number: signal.Signals, home_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.status.show_status", lambda *_: signal.raise_signal(number))
    assert main(["--home", str(home_path), "status"]) == 130
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "stopped; run the same command to carry on\n")


def test_a_preset_as_shown_is_that_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from flows.presets import load_preset

    assert main(["config", "show", "--set", "build.rounds=2", "--set", "campaign.name=trial"]) == 0
    text = capsys.readouterr().out
    assert "# " in text
    shown = tmp_path / "shown.yaml"
    shown.write_text(text)
    assert load_preset(str(shown)) == load_preset("quickstart", ["build.rounds=2", "campaign.name=trial"])
