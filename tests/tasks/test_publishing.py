"""Publishing: one repeatable transaction; what comes out opens with ``datasets`` and says the truth about the round."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from storage.campaigns import load_campaign, start_campaign
from storage.errors import ServiceError
from storage.files import write_bytes
from storage.findings import failures
from storage.home import Home
from storage.manifests import Manifest, Source
from storage.tracking import Tracking
from storage.versions import load_manifest, verify_version, version_uri
from tasks.audit.checks import audit_version
from tasks.rounds import publishing
from tasks.rounds.dataset_card import dataset_card
from tasks.rounds.funnel import FUNNEL, TOKENS, funnel_counts, token_counts
from tasks.rounds.plots import PLOTS, histogram, write_plots
from tasks.rounds.publishing import publish_round, report_folder, with_documents
from tests.rounds import BuiltRound, build_round, frames
from tests.world_by_hand import CONFIG, round_tables

# MLflow's own tables use a loader that SQLAlchemy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture
def built(home: Home) -> BuiltRound:
    """A round whose files are there; publishing it with its card gives another version than the builder's."""
    start_campaign(home, "world", CONFIG)
    built = build_round(home)
    shutil.rmtree(home / "versions")
    return built


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database after its migrations, made once."""
    home = Home.open(tmp_path_factory.mktemp("mlflow") / "home")
    Tracking(home).find_version("0" * 64)
    return home / "mlflow"


@pytest.fixture
def tracking(home: Home, migrated: Path) -> Tracking:
    shutil.copytree(migrated, home / "mlflow")
    return Tracking(home)


def publish(built: BuiltRound, tracking: Tracking | None = None, **more: Any) -> str:
    return publish_round(built.home, "world", built.manifest, built.files, tracking=tracking, **more)


def test_a_published_round_is_in_the_version_in_mlflow_in_the_reports_and_in_the_campaign(
    built: BuiltRound, tracking: Tracking
) -> None:
    version = publish(built, tracking, measures={"screening_seconds": 12.5})
    home = built.home
    assert failures(verify_version(home, version)) == []
    record = load_campaign(home).rounds[0]
    assert (record.round, record.version, record.policy) == (1, version, built.manifest.policy)
    assert record.figures["kept"] == 6
    assert record.figures["tokens"] == 129
    assert record.figures["screening_seconds"] == 12.5
    run = tracking.find_version(version)
    assert run is not None
    assert run.experiment == "world"
    assert run.metrics["positives"] == 6
    assert run.metrics["screening_seconds"] == 12.5
    assert run.params["verification.epsilon"] == "0.4"
    assert [dataset.digest for dataset in run.datasets] == [version]
    artifacts = {path.name for path in Path(run.artifact_uri.removeprefix("file://")).iterdir()}
    assert artifacts == {"manifest.json", "README.md", "config.json", *PLOTS}
    assert [f.status for f in audit_version(home, version).findings if f.check == "MLflow run"] == ["passed"]


def test_an_mlflow_run_that_says_something_else_is_found_by_the_audit(built: BuiltRound, tracking: Tracking) -> None:
    version = publish(built, tracking)
    run = tracking.find_version(version)
    assert run is not None
    tracking.log_round(run.run_id, tags={"policylong.policy": "0" * 64})
    (finding,) = [f for f in audit_version(built.home, version).findings if f.check == "MLflow run"]
    assert finding.status == "failed"
    assert "policylong.policy" in finding.detail


def test_publishing_twice_gives_one_run_one_record_one_version(built: BuiltRound, tracking: Tracking) -> None:
    assert publish(built, tracking) == publish(built, tracking)
    client = tracking._client
    experiment = client.get_experiment_by_name("world")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 1
    assert len(load_campaign(built.home).rounds) == 1
    assert len(list((built.home / "versions").iterdir())) == 1


class Gone(Tracking):
    """An MLflow that does not answer."""

    def __init__(self) -> None:
        pass

    def round_run(self, *args: Any, **kwargs: Any) -> str:
        raise ServiceError("MLflow does not answer.")


def test_when_mlflow_is_gone_the_round_is_not_recorded_and_the_same_call_carries_on(
    built: BuiltRound, tracking: Tracking
) -> None:
    with pytest.raises(ServiceError):
        publish(built, Gone())
    assert load_campaign(built.home).rounds == ()
    version = publish(built, tracking)
    assert load_campaign(built.home).rounds[0].version == version
    assert tracking.find_version(version) is not None


@pytest.mark.parametrize("stage", ["publish_version", "plot_round", "track_round", "record_round"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_around_any_stage_is_made_good_by_the_next_call(
    stage: str, moment: str, built: BuiltRound, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []

    class Noted(Gone):
        def round_run(self, campaign: str, round: int, version: str, *, policy: str) -> str:
            return version

        def log_round(self, run_id: str, **values: Any) -> None:
            logged.append(run_id)

    def drawn(folder: Path, *_: Any) -> list[Path]:
        for name in PLOTS:
            write_bytes(folder / name, b"drawn")
        return []

    monkeypatch.setattr(publishing, "write_plots", drawn)
    real: Callable[..., Any] = getattr(publishing, stage)

    def killed(*args: Any, **kwargs: Any) -> Any:
        if moment == "after":
            real(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(publishing, stage, killed)
        with pytest.raises(KeyboardInterrupt):
            publish(built, Noted())
    version = publish(built, Noted())
    assert failures(verify_version(built.home, version)) == []
    assert set(logged) == {version}
    assert load_campaign(built.home).rounds[0].version == version
    assert {path.name for path in report_folder(built.home, version).iterdir()} == set(PLOTS)


def test_the_folder_and_its_samples_open_with_datasets(built: BuiltRound, tmp_path: Path) -> None:
    from datasets import load_dataset

    folder = built.home / version_uri(publish(built))
    cache = str(tmp_path / "cache")
    whole = load_dataset(str(folder), split="train", cache_dir=cache)
    files = load_dataset("parquet", data_files=f"{folder}/samples/*.parquet", split="train", cache_dir=cache)
    sample = round_tables(1)["samples"][0][0]
    for opened in (whole, files):
        assert opened[0]["input_ids"] == sample["input_ids"]
        assert opened[0]["segments"] == sample["segments"]
    verdicts = load_dataset(str(folder), "verdicts", split="train", cache_dir=cache)
    assert len(verdicts) == 12


def test_the_card_names_every_column_and_count_and_nothing_that_changes(built: BuiltRound) -> None:
    card = dataset_card(built.manifest).decode()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["configs"][0]["data_files"][0]["path"] == "samples/samples-*.parquet"
    for expected in (
        "source_start: int32",
        "`entropy_before`",
        "| kept | 6 |",
        "| total | 129 |",
        built.manifest.policy,
    ):
        assert expected in card
    version = publish(built)
    manifest = load_manifest(built.home, version)
    assert version not in card
    assert str(built.home.path) not in card
    assert with_documents(built.home, manifest, {})[0] == manifest


def test_documents_are_part_of_the_version_and_config_is_the_manifests(built: BuiltRound) -> None:
    files: dict[str, Source] = {name: built.files[name] for name in built.files if name.endswith(".parquet")}
    entries = {name: built.manifest.files[name] for name in files}
    bare = Manifest.model_validate({**built.manifest.model_dump(), "files": entries})
    manifest, whole = with_documents(built.home, bare, files)
    assert set(manifest.files) == set(whole) == {*files, "README.md", "config.json"}
    assert manifest.files["config.json"].sha256 == manifest.config_digest


def test_funnel_and_tokens_are_those_of_a_plain_count(built: BuiltRound) -> None:
    shards = round_tables(1)
    rows = {name: [row for shard in parts for row in shard] for name, parts in shards.items()}
    kept = [row for row in rows["verdicts"] if row["kept"]]
    segments = [segment for sample in rows["samples"] for segment in sample["segments"]]
    assert funnel_counts(frames(built.home, built.files)) == {
        "roots": len(rows["screened"]),
        "positions": len(rows["positions"]),
        "candidates": len(rows["candidates"]),
        "excluded": sum(row["excluded"] is not None for row in rows["candidates"]),
        "verdicts": len(rows["verdicts"]),
        "kept": len(kept),
        "positives": len({(row["root"], row["chunk"]) for row in kept}),
        "negatives": sum(row["kept"] for row in rows["negatives"]),
        "samples": len(rows["samples"]),
    }
    of_kind = {
        kind: sum(s["end"] - s["start"] for s in segments if s["kind"] == kind)
        for kind in ("root", "positive", "negative", "document", "filler", "tag")
    }
    total = sum(len(sample["input_ids"]) for sample in rows["samples"])
    found = token_counts(frames(built.home, built.files)["samples"])
    assert found == {"total": total, **of_kind, "separator": total - sum(of_kind.values())}
    assert set(found) == set(TOKENS)
    assert set(built.manifest.funnel) == set(FUNNEL) - {"unverified"}, "counted only where there was a budget"


def test_counts_of_empty_tables_are_zero(home: Home) -> None:
    def empty(tables: dict[str, list[list[Any]]]) -> None:
        for shards in tables.values():
            shards[:] = [[]]

    manifest = build_round(home, change=empty).manifest
    assert set(manifest.funnel.values()) == {0}
    assert set(manifest.tokens.values()) == {0}


def test_histogram_counts_as_numpy_does_and_keeps_what_lies_outside() -> None:
    values = np.random.default_rng(0).normal(size=5_000)
    frame = pl.DataFrame({"x": [*values.tolist(), None]}).lazy()
    inside = np.histogram(np.clip(values, -1, 1), bins=40, range=(-1, 1))[0].tolist()
    assert histogram(frame, "x", (-1.0, 1.0), 40) == inside


def test_plots_of_a_round_without_anything_are_still_drawn(home: Home, tmp_path: Path) -> None:
    tables = {name: frame.head(0) for name, frame in frames(home, build_round(home).files).items()}
    paths = write_plots(tmp_path, tables, "Round 1", None)
    assert [path.name for path in paths] == list(PLOTS)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
