"""The doctor finds what is wrong, says what to do about it, and fails only on problems."""

from __future__ import annotations

import io
import shutil
import socket
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
from rich.console import Console

from flows import doctor
from flows.doctor import Check, show_checks, versions

Usage = namedtuple("Usage", "total used free")


def shown(checks: list[Check]) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=60)
    code = show_checks(console, iter(checks))
    file = console.file
    assert isinstance(file, io.StringIO)
    return code, file.getvalue()


def test_only_a_problem_fails_and_every_remedy_is_shown() -> None:
    code, text = shown([Check("ok", "Python", "3.11"), Check("warning", "port 4200", "in use", "use [--port] 4201")])
    assert code == 0
    assert "use [--port] 4201" in text
    assert shown([Check("problem", "disk", "full", "free space"), Check("ok", "memory", "fine")])[0] == 1


def test_a_version_outside_its_range_names_the_one_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"fastapi": "0.155.0", "torch": "2.13.0+cpu"}

    def version(name: str) -> str:
        if name not in found:
            raise metadata.PackageNotFoundError(name)
        return found[name]

    wanted = ["fastapi<0.153,>=0.139", "torch<2.14,>=2.6", "polars>=1", 'ruff; extra == "dev"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: wanted)
    monkeypatch.setattr(doctor.metadata, "version", version)
    checks = list(versions())
    assert [(check.level, check.subject) for check in checks] == [
        ("problem", "fastapi"),
        ("problem", "polars"),
        ("ok", "libraries"),
    ]
    assert checks[0].remedy == 'pip install "fastapi<0.153,>=0.139"'
    assert "torch 2.13.0+cpu" in checks[2].found


def test_this_environment_is_in_the_tested_ranges() -> None:
    wrong = [check for check in versions() if check.level != "ok"]
    assert wrong in ([], [Check("problem", "policylong", "not installed", "pip install -e . in the project's folder")])


@pytest.mark.parametrize(("free", "level"), [(100, "ok"), (5, "warning"), (1, "problem")])
def test_a_disk_that_fills_up_is_seen_before_the_run(
    free: int, level: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, free * doctor.GIB))
    check = doctor._disk(tmp_path / "not/yet/there")
    assert check.level == level
    assert (level == "ok") == (not check.remedy)


def test_a_port_in_use_is_a_warning_with_a_remedy() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert doctor._port(port, "mlflow server").level == "warning"
    assert doctor._port(port, "mlflow server").level == "ok"


def test_the_hub_is_not_asked_when_it_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(doctor, "_answers", lambda _: pytest.fail("asked the hub"))
    assert doctor._hub().level == "ok"


def test_a_hub_that_does_not_answer_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(doctor, "HUB", f"http://127.0.0.1:{free_port()}")
    assert doctor._hub().level == "warning"


def test_a_qdrant_server_that_does_not_answer_is_a_problem() -> None:
    from storage.vectors import IndexConfig

    assert doctor._qdrant(IndexConfig()).level == "ok"
    assert doctor._qdrant(IndexConfig(engine="server", url=f"http://127.0.0.1:{free_port()}")).level == "problem"


def test_a_missing_base_model_is_a_problem_and_not_a_crash(tmp_path: Path) -> None:
    from tasks.training.base_policy import BasePolicyConfig

    check = doctor.base_model(BasePolicyConfig(base=str(tmp_path / "gone")))
    assert check.level == "problem"
    assert "does not exist" in check.found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
