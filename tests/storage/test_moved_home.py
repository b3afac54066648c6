"""A home that was moved: what is logged there afterwards, and before, is in the new place."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from mlflow import MlflowClient

from storage.home import Home
from storage.moved_home import follow_home
from storage.tracking import Tracking
from tests.mlflow_home import tracked

VERSION, NEXT, POLICY = "a1" * 32, "b2" * 32, "c3" * 32


def test_artifacts_of_a_moved_home_are_found_and_logged_where_it_is_now(home: Home, tmp_path: Path) -> None:
    plot = tmp_path / "plot.txt"
    plot.write_text("a plot")
    before = tracked(home)
    first = before.round_run("demo", 1, VERSION, policy=POLICY)
    before.log_round(first, artifacts=[plot])
    moved = Home.open(Path(shutil.copytree(home.path, tmp_path / "elsewhere/home")))
    shutil.rmtree(home.path)

    tracking = Tracking(moved)
    assert tracking.round_run("demo", 1, VERSION, policy=POLICY) == first
    second = tracking.round_run("demo", 2, NEXT, policy=POLICY)
    tracking.log_round(second, artifacts=[plot])
    client = MlflowClient(tracking.uri, tracking.uri)
    for run in (first, second):
        place = client.get_run(run).info.artifact_uri
        assert place.startswith((moved.path / "mlflow/artifacts").as_uri())
        assert Path(client.download_artifacts(run, "plot.txt")).read_text() == "a plot"
    assert not home.path.exists()


def test_a_home_that_stays_and_places_of_others_are_left_alone(tmp_path: Path) -> None:
    database, here = tmp_path / "mlflow.db", "file:///here/mlflow/artifacts"
    assert follow_home(database, here) == 0
    with closing(sqlite3.connect(database)) as store, store:
        store.execute("CREATE TABLE experiments (artifact_location TEXT)")
        for place in (
            here,
            f"{here}/1",
            "s3://bucket/mlflow/artifacts/2",
            "./mlruns/0",
            "file:///old/mlflow/artifacts/3",
        ):
            store.execute("INSERT INTO experiments VALUES (?)", (place,))
    assert follow_home(database, here) == 1
    assert follow_home(database, here) == 0
    with closing(sqlite3.connect(database)) as store:
        kept = [place for (place,) in store.execute("SELECT artifact_location FROM experiments")]
    assert kept == [here, f"{here}/1", "s3://bucket/mlflow/artifacts/2", "./mlruns/0", f"{here}/3"]
