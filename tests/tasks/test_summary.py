"""What is said after a build: the counts, and where a round without samples came to its end."""

from __future__ import annotations

import pytest

from storage.manifests import Manifest
from tasks.rounds.summary import round_summary


def manifest(funnel: dict[str, int], figures: dict[str, float] | None = None, total: int = 0) -> Manifest:
    return Manifest.model_construct(
        round=2, recipe="policylong", funnel=funnel, figures=figures or {}, tokens={"total": total}
    )


def test_a_round_is_one_line_of_counts() -> None:
    funnel = {"roots": 72, "positions": 287, "candidates": 6250, "positives": 179, "negatives": 9, "samples": 14}
    assert round_summary(manifest(funnel, total=28672), "a" * 64) == [
        "round 2 (policylong): 72 roots, 287 positions, 6,250 candidates, 179 positives, 9 negatives, 14 samples,"
        f" 28,672 tokens · {'a' * 12}"
    ]


@pytest.mark.parametrize(
    ("funnel", "told"),
    [
        ({"roots": 72}, "build.entropy.alpha"),
        ({"roots": 72, "positions": 2}, "build.retrieval.top_k"),
        ({"roots": 72, "positions": 2, "candidates": 32}, "No candidate lowered"),
        ({"roots": 72, "positions": 2, "candidates": 32, "positives": 1}, "does not fill a sample"),
        ({}, "ingest more text"),
    ],
)
def test_a_round_without_samples_says_where_it_ended(funnel: dict[str, int], told: str) -> None:
    first, second = round_summary(manifest(funnel), "b" * 64)
    assert first.startswith("round 2 (policylong): ")
    assert second.startswith("This round has no samples")
    assert told in second


def test_an_unfilled_budget_is_said() -> None:
    found = round_summary(manifest({"samples": 1}, {"shortfall_tokens": 4096.0}, total=2048), "c" * 64)
    assert "4,096 tokens more" in found[1]
