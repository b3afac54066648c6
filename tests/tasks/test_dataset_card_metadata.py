"""The card's front matter as the hub's own library reads it."""

from __future__ import annotations

from huggingface_hub import DatasetCard

from storage.home import Home
from tasks.rounds.dataset_card import dataset_card
from tests.rounds import build_round

HUB_SIZES = "n<1K 1K<n<10K 10K<n<100K 100K<n<1M 1M<n<10M 10M<n<100M 100M<n<1B 1B<n<10B".split()
"""https://huggingface.co/docs/hub/datasets-cards: the values of size_categories that are reached."""


def test_the_hub_s_library_finds_its_metadata(home: Home) -> None:
    manifest = build_round(home).manifest
    data = DatasetCard(dataset_card(manifest).decode()).data.to_dict()
    assert data["task_categories"] == ["text-generation"]
    assert data["size_categories"] == ["n<1K"]
    assert data["pretty_name"] == "policylong, round 1"
    assert set(data["tags"]) >= {"long-context", "policylong"}
    tables = {entry.table for entry in manifest.files.values() if entry.table}
    assert {config["config_name"] for config in data["configs"]} == tables
    assert [config["config_name"] for config in data["configs"] if config.get("default")] == ["samples"]


def test_every_size_has_the_hub_s_name(home: Home) -> None:
    manifest = build_round(home).manifest
    for power in range(10):
        grown = manifest.model_copy(update={"funnel": manifest.funnel | {"samples": 10**power}})
        told = DatasetCard(dataset_card(grown).decode()).data.to_dict()["size_categories"]
        assert told == [HUB_SIZES[max(power - 2, 0)]]
