"""Single changes to what MLflow's database says about a campaign, made by SQL, each with its undoing."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from deploy.drills.edits import Edit, Kind, Target, other_value

_RUNS = "SELECT runs.run_uuid FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = ? ORDER BY 1"
_VERSIONS = "FROM model_versions WHERE name = ?"
_SERIES = ("loss", "learning_rate", "gradient_norm")


def _rows(target: Target, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(target.database, timeout=60)) as database:
        return database.execute(statement, values).fetchall()


def _do(target: Target, statement: str, values: Sequence[Any]) -> None:
    with closing(sqlite3.connect(target.database, timeout=60)) as database, database:
        changed = database.execute(statement, values).rowcount
    assert changed == 1, f"{statement} changed {changed} rows"


@contextmanager
def _changed(target: Target, table: str, column: str, key: dict[str, Any], old: Any, new: Any) -> Iterator[None]:
    """One cell with another value; ``key`` finds the row before and, where it holds the cell itself, after."""
    where = " AND ".join(f'"{name}" = ?' for name in key)
    after = {name: new if name == column else value for name, value in key.items()}
    statement = f'UPDATE {table} SET "{column}" = ? WHERE {where}'
    _do(target, statement, (new, *key.values()))
    try:
        yield
    finally:
        _do(target, statement, (old, *after.values()))


@contextmanager
def _removed(target: Target, table: str, key: dict[str, Any]) -> Iterator[None]:
    """One row gone."""
    where = " AND ".join(f'"{name}" = ?' for name in key)
    (row,) = _rows(target, f"SELECT * FROM {table} WHERE {where}", tuple(key.values()))
    _do(target, f"DELETE FROM {table} WHERE {where}", tuple(key.values()))
    try:
        yield
    finally:
        _do(target, f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def _runs(target: Target) -> list[str]:
    return [run for (run,) in _rows(target, _RUNS, (target.campaign.name,))]


def _of_runs(target: Target, table: str, condition: str = "1") -> list[tuple[str, str, Any]]:
    """(run, key, value) of the campaign's runs, in order."""
    runs = _runs(target)
    which = f"run_uuid IN ({_marks(runs)}) AND {condition}"
    rows = _rows(target, f"SELECT run_uuid, key, value FROM {table} WHERE {which} ORDER BY 1, 2", runs)
    return [(run, key, value) for run, key, value in rows]


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _cell(what: str, table: str, condition: str = "1") -> Kind:
    """A tag or param changed, or taken away in one of four."""

    @contextmanager
    def change(target: Target, dice: random.Random) -> Iterator[Edit]:
        run, name, value = dice.choice(_of_runs(target, table, condition))
        row = {"run_uuid": run, "key": name}
        needles = ((f"{what} {name} ",),)
        if dice.random() < 0.25:
            with _removed(target, table, row):
                yield f"{what} {name} of run {run} deleted", needles
            return
        new = other_value(dice, value)
        with _changed(target, table, "value", row, value, new):
            yield f"{what} {name} of run {run}: {value} → {new}", needles

    return change


@contextmanager
def _metric(target: Target, dice: random.Random) -> Iterator[Edit]:
    """A number of a run, or one step of a training's curve."""
    if dice.random() < 0.5:
        run, name, value = dice.choice(_of_runs(target, "latest_metrics"))
        new = other_value(dice, float(value))
        with _changed(target, "latest_metrics", "value", {"run_uuid": run, "key": name}, value, new):
            yield f"metric {name} of run {run}: {value} → {new}", ((f"{name} ",),)
        return
    runs = _runs(target)
    which = f"run_uuid IN ({_marks(runs)}) AND key IN ({_marks(_SERIES)})"
    points = _rows(
        target, f"SELECT run_uuid, key, step, value FROM metrics WHERE {which} ORDER BY 1, 2, 3", (*runs, *_SERIES)
    )
    run, name, step, value = dice.choice(points)
    new = other_value(dice, float(value))
    with _changed(target, "metrics", "value", {"run_uuid": run, "key": name, "step": step}, value, new):
        yield f"step {step} of metric {name} of run {run}: {value} → {new}", ((f"metric {name} ", run),)


def _other_end(source: str) -> str:
    """Another version or policy at the end of a source: what is before it is the machine's, and a home may be moved."""
    place = len(source.rstrip('"}')) - 1
    return f"{source[:place]}{'0' if source[place] != '0' else '1'}{source[place + 1 :]}"


@contextmanager
def _dataset(target: Target, dice: random.Random) -> Iterator[Edit]:
    runs = _runs(target)
    of_runs = f"source_type = 'DATASET' AND destination_id IN ({_marks(runs)})"
    inputs = _rows(target, f"SELECT input_uuid, source_id FROM inputs WHERE {of_runs} ORDER BY destination_id", runs)
    entry, dataset = dice.choice(inputs)
    if dice.random() < 0.5:
        column = dice.choice(["name", "digest", "dataset_source", "dataset_profile"])
        ((old,),) = _rows(target, f"SELECT {column} FROM datasets WHERE dataset_uuid = ?", (dataset,))
        new = _other_end(old) if column == "dataset_source" else other_value(dice, old)
        with _changed(target, "datasets", column, {"dataset_uuid": dataset}, old, new):
            yield f"dataset {column}: {old} → {new}", ((f"dataset {column.removeprefix('dataset_')} ",),)
        return
    tags = _rows(target, "SELECT name, value FROM input_tags WHERE input_uuid = ? ORDER BY 1", (entry,))
    name, old = dice.choice(tags)
    new = other_value(dice, old)
    with _changed(target, "input_tags", "value", {"input_uuid": entry, "name": name}, old, new):
        yield f"dataset tag {name}: {old} → {new}", ((f"dataset {name.removeprefix('mlflow.data.')} ",),)


@contextmanager
def _registered(target: Target, dice: random.Random) -> Iterator[Edit]:
    model = target.campaign.name
    (number,) = dice.choice(_rows(target, f"SELECT version {_VERSIONS} ORDER BY 1", (model,)))
    key = {"name": model, "version": number}
    needles = ((f"version {number} of model {model}",),)
    column = dice.choice(["tag", "source", "run_id"])
    if column == "tag":
        tag = "SELECT value FROM model_version_tags WHERE name = ? AND version = ?"
        ((old,),) = _rows(target, tag, (model, number))
        new = other_value(dice, old)
        with _changed(target, "model_version_tags", "value", key, old, new):
            yield f"policy of version {number} of model {model}: {old} → {new}", needles
        return
    ((old,),) = _rows(target, f"SELECT {column} {_VERSIONS} AND version = ?", (model, number))
    new = other_value(dice, old) if column == "run_id" else _other_end(old)
    with _changed(target, "model_versions", column, key, old, new):
        yield f"{column} of version {number} of model {model}: {old} → {new}", needles


@contextmanager
def _alias(target: Target, dice: random.Random) -> Iterator[Edit]:
    model = target.campaign.name
    key = {"name": model, "alias": "current"}
    alias = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = 'current'"
    ((old,),) = _rows(target, alias, (model,))
    others = [number for (number,) in _rows(target, f"SELECT version {_VERSIONS}", (model,)) if number != old]
    new = dice.choice([*others, None])
    needles = (("alias current",),)
    if new is None:
        with _removed(target, "registered_model_aliases", key):
            yield f"alias current of model {model} deleted", needles
        return
    with _changed(target, "registered_model_aliases", "version", key, old, new):
        yield f"alias current of model {model}: version {old} → {new}", needles


MLFLOW_KINDS: dict[str, Kind] = {
    "MLflow tag edited": _cell("tag", "tags", "key LIKE 'policylong.%'"),
    "MLflow param edited": _cell("param", "params"),
    "MLflow metric edited": _metric,
    "MLflow dataset edited": _dataset,
    "registered policy edited": _registered,
    "alias re-pointed": _alias,
}
