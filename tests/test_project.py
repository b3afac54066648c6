"""The project's own files: they are true, they carry nothing of one machine, and what they name exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
from packaging.requirements import Requirement

from flows.cli import app
from flows.commands import register_all

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
MACHINE_PATHS = re.compile(r"(?<![\w.~-])/(work|root|home/\w+|Users/\w+|opt/\w+)/")
INDEXES = re.compile(r"(?i)(--(extra-)?index-url|--find-links|file://)")


def project() -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return loaded


def tracked() -> list[Path]:
    """Files that belong to the project: what git would carry, else everything that is text."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    names = listing.stdout.splitlines() if listing.returncode == 0 else []
    everything = (path for path in ROOT.rglob("*") if path.suffix in (".py", ".md", ".toml"))
    return [ROOT / name for name in names] or list(everything)


def command_lines() -> list[tuple[str, str]]:
    """(page, line) of every call of policylong that a page shows as a command."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        shown = re.findall(r"^ {4,}((?:\S*/)?policylong .*)$", text, re.M)
        shown += re.findall(r"`((?:\.venv/bin/)?policylong [^`]+)`", text)
        found += [(page.name, re.sub(r"\s+#.*$", "", line)) for line in shown]
    return found


def resolves(line: str) -> bool:
    """Whether the words of a command line name a command and options that exist."""
    register_all(app)
    command: Any = typer.main.get_command(app)
    options = {name for parameter in command.params for name in parameter.opts}
    for word in shlex.split(line)[1:]:
        if word.startswith("-"):
            options |= {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            if word.split("=")[0] not in options | {"--help", "-h"}:
                return False
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return False
            command = command.commands[word]
    return True


def test_pages_show_commands() -> None:
    assert len(command_lines()) >= 5


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_every_command_in_the_pages_exists(page: str, line: str) -> None:
    assert resolves(line), f"{page}: {line}"


def test_the_check_of_commands_can_fail() -> None:
    assert not resolves("policylong fly")
    assert not resolves("policylong run --fast")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} → {target}"


def test_no_file_carries_a_path_or_index_of_one_machine() -> None:
    for path in tracked():
        if path.suffix in (".safetensors", ".parquet", ".png") or path == Path(__file__) or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found = MACHINE_PATHS.search(text)
        assert not found, f"{path.relative_to(ROOT)}: {found and found.group()}"
        if path.name in ("constraints.txt", "pyproject.toml", "Makefile", "run"):
            assert not INDEXES.search(text), path.name


def test_constraints_lie_in_the_declared_ranges() -> None:
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"
    )
    declared = [Requirement(line) for line in (*project()["dependencies"], *project()["optional-dependencies"]["dev"])]
    for requirement in declared:
        version = pinned[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version), f"{requirement}: {version}"
        assert "+" not in version


def test_the_targets_that_the_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        named = set(re.findall(r"^ {4,}make ([a-z]+)", page.read_text(encoding="utf-8"), re.M))
        named |= set(re.findall(r"`make ([a-z]+)", page.read_text(encoding="utf-8")))
        assert named <= targets, page.name


def test_presets_say_what_they_are() -> None:
    from flows.presets import load_preset, preset_names

    assert {"quickstart", "quickstart-small"} <= set(preset_names())
    for name in preset_names():
        assert load_preset(name).description
