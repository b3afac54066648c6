"""Commands on a home with real rounds and policies, and what a run says at its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flows import server
from flows.campaign import CampaignResult
from flows.cli import main
from flows.views.console import RoundRow
from models.policy_files import policy_digest
from storage.campaigns import Campaign
from storage.home import Home
from storage.manifests import shard_name
from tests.rounds import build_rounds
from tests.tiny_policies import tiny_policy


def run(home: Home, *words: str) -> int:
    return main(["--home", str(home.path), *words])


def test_a_checkpoint_is_added_listed_and_shown(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_policy(tmp_path / "checkpoint")
    assert run(home, "policy", "add", str(folder)) == 0
    digest = capsys.readouterr().out.strip()
    assert digest == policy_digest(folder)
    assert run(home, "policy", "list") == 0
    assert digest[:12] in capsys.readouterr().out
    assert run(home, "policy", "show", digest[:8]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == digest


def test_weights_that_are_not_numbers_are_one_line_that_names_the_tensor(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_policy(tmp_path / "checkpoint")
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    weights[name].view(-1)[0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert run(home, "policy", "add", str(folder)) == 3
    shown = capsys.readouterr()
    assert (shown.out, len(shown.err.splitlines())) == ("", 1)
    assert name in shown.err
    assert not (home / "policies").exists()


def test_an_audit_passes_and_after_one_flipped_bit_names_the_file(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    built = build_rounds(home, 1)[-1]
    assert run(home, "audit", "1", "--quiet") == 0
    assert "0 failed" in capsys.readouterr().out
    path = home / f"versions/{built.version[:16]}" / shard_name("verdicts", 0)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)
    assert run(home, "audit", "1", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    failed = [finding["file"] for finding in report["findings"] if finding["status"] == "failed"]
    assert str(path.relative_to(home.path)) in failed


def test_status_of_a_home_with_rounds_names_their_versions(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    versions = [built.version for built in build_rounds(home, 2)]
    assert run(home, "status") == 0
    text = capsys.readouterr().out
    assert all(version[:12] in text for version in versions)


@pytest.mark.parametrize("waiting", [None, "f" * 64])
@pytest.mark.parametrize("steps", [0, 3])
def test_a_run_says_whether_it_did_anything_and_what_it_waits_for(
    steps: int, waiting: str | None, home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def no_server(_: Home) -> Iterator[str]:
        yield "http://127.0.0.1:4200/api"

    def campaign(home_path: str, _: object) -> CampaignResult:
        for number in range(steps):
            Home.open(Path(home_path)).journal({"event": "finished", "step": "entropy", "key": str(number)})
        row = RoundRow(round=1, version="e" * 64, policy="d" * 64, roots=48)
        return CampaignResult(Campaign(name="trial", config_digest="c" * 64, config={}), "c", (row,), None, waiting)

    monkeypatch.setattr(server, "prefect_server", no_server)
    monkeypatch.setattr("flows.campaign.campaign", campaign)
    assert run(home, "run", "--name", "trial") == 0
    shown = capsys.readouterr()
    assert "e" * 12 in shown.out
    assert ("Nothing was left to do" in shown.err) == (steps == 0)
    assert ("policylong policy add PATH --trained-on ffffffffffff" in shown.err) == (waiting is not None)
