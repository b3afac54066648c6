"""What was measured after a round, on its page: context gain by policy and length, attributable gain, cost, nulls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from storage.campaigns import load_campaign, record_round
from storage.files import write_json
from storage.home import Home
from tasks.reporting.writing import write_campaign, write_round
from tests.reported_page import read_page
from tests.rounds import BuiltRound, build_round, build_rounds
from tests.world_by_hand import Shards


@pytest.fixture
def rounds(home: Home) -> list[BuiltRound]:
    return build_rounds(home, 2)


def measured(home: Home, policy: str, corpus: str, number: int, **changes: Any) -> Path:
    """A record as ``tasks.measurements.context_gain`` writes it."""
    config = {"long": changes.get("long", 2048), "short": 256, "windows": 32}
    result = {"policy": policy, "corpus": corpus, "gain": 0.1, "standard_error": 0.01, "loss_long": 2.0}
    result |= {"loss_short": 2.1, "windows": 32, "groups": 3, "tokens": 64, "native_context": 512, "note": ""}
    result |= {name: value for name, value in changes.items() if name != "long"}
    path = home.folder("checkpoints/context-gain") / f"{number}.json"
    write_json(path, {"key": {"config": config, "inputs": {}}, "result": result})
    return path


def test_context_gain_of_every_policy_at_every_length(home: Home, rounds: list[BuiltRound]) -> None:
    corpus = rounds[0].manifest.corpus
    base, one = (built.manifest.policy for built in rounds)
    two = load_campaign(home, "world").rounds[1].next_policy
    assert two is not None
    measured(home, base, corpus, 1, gain=-0.027, note="stretched")
    measured(home, one, corpus, 2, gain=0.112)
    measured(home, two, corpus, 3, gain=0.124, long=8192)
    measured(home, two, corpus, 4, gain=0.9, windows=4, long=8192)
    measured(home, base, "f" * 64, 5, gain=9.0)
    measured(home, "e" * 64, corpus, 6, gain=9.0)
    measured(home, one, corpus, 7, gain=None, long=131072)
    write_json(home / "checkpoints/context-gain/8.json", ["of another kind"])
    (home / "checkpoints/context-gain/9.json").write_text("{", encoding="utf-8")
    for page in (write_round(home, "2"), write_campaign(home, "world")[0]):
        told = [row[:4] for row in read_page(page).table("Context gain, nats a token")[1:]]
        assert told == [
            [f"base model ({base[:8]})", "2,048", "256", "−0.027"],
            [f"after round 1 ({one[:8]})", "2,048", "256", "+0.112"],
            [f"after round 2 ({two[:8]})", "8,192", "256", "+0.124"],
        ]
        assert "base model: stretched." in read_page(page).text
        assert "Measured at one length only" not in read_page(page).text


def test_figures_of_the_record_and_the_manifest(home: Home, rounds: list[BuiltRound]) -> None:
    record = load_campaign(home, "world").rounds[1]
    figures: dict[str, Any] = {
        "attributable_gain_from_0": 0.5,
        "attributable_gain_from_0_after": 0.25,
        "attributable_gain_from_128": 0.125,
        "null_same_overlap_positions": 1.0,
        "null_same_overlap_positives": 0.99,
        "screening_seconds": 51.3,
        "first_loss": 2.5,
        "last_loss": 1.25,
        "training_tokens": 57344,
        "context_gain_before": 0.112,
        "context_gain_after": 0.114,
        "context_gain_error": 0.057,
    }
    record_round(home, "world", record.model_copy(update={"figures": figures}))
    page = read_page(write_round(home, "2"))
    assert page.table("Attributable gain")[1:] == [["from 0", "0.500", "0.250"], ["from 128", "0.125", "no value"]]
    assert page.table("How much would change anyway")[1] == ["the same policy read again", "100.0 %", "99.0 %"]
    assert page.column("Screening beside training", "Screening")["Seconds on this machine"] == "51.3"
    assert "57,344 tokens took the loss on the round's own samples from 2.500" in page.text
    assert "(standard error 0.057: the change lies within it)" in page.text


def test_costs_of_a_manifest(home: Home) -> None:
    figures = {
        "training_flops": 8.54193e11,
        "screening_flops": 4.34007e12,
        "literal_flops": 7.46736e12,
        "screening_tokens": 100.0,
        "screening_tokens_entropy": 25.0,
        "screening_tokens_verification": 75.0,
    }
    built = build_round(home, manifest_changes={"figures": figures})
    page = read_page(write_round(home, built.version))
    assert "Screening took 5.08 times the operations of one training pass" in page.text
    assert page.column("Floating-point operations", "Operations") == {
        "training, one pass over the samples": "8.54 × 10¹¹",
        "screening, as it was run": "4.34 × 10¹²",
        "screening, every pair by itself": "7.47 × 10¹²",
    }
    assert page.column("Tokens that the screening read", "Share") == {"entropy": "25.0 %", "verification": "75.0 %"}


def test_passes_that_a_budget_left_out(home: Home) -> None:
    def budget(tables: Shards) -> None:
        row = {"root": 1, "place": 0, "rank": 0, "tokens": 40, "expected": None, "verified": True, "reason": None}
        left = [row | {"chunk": n, "verified": False, "reason": "quota"} for n in range(3)]
        tables["passes"] = [[row | {"chunk": 9}, *left]]

    page = read_page(write_round(home, build_round(home, change=budget).version))
    assert page.table("Passes that the budget of verification left out")[1:] == [["quota", "3", "120"]]
