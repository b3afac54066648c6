"""A round whose verification has a budget: a part of the exhaustive round, the same on every run, and audit-proof."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from models.embedders import EmbedderConfig
from models.policy import load_tokenizer
from storage.errors import InputError
from storage.home import Home
from storage.manifests import Manifest
from storage.schemas import TABLES
from storage.tables import write_table
from storage.vectors import IndexConfig
from storage.versions import load_manifest, publish_version, version_uri
from tasks.audit.checks import audit_version
from tasks.audit.expectations import EXPECTED, MODEL, audit_expectations
from tasks.audit.passes import audit_passes
from tasks.audit.subject import Subject
from tasks.audit.tables import audit_tables
from tasks.checkpointed import Step, tally
from tasks.measurements.yield_curves import yield_report
from tasks.recipes import recipe_named
from tasks.resources import release
from tasks.rounds.building import policy_inputs
from tasks.rounds.recipe import NoOptions
from tasks.rounds.round import Round
from tasks.rounds.tables import RoundTables, Standing, round_manifest
from tasks.screening.verification import VerificationConfig
from tests.published_world import sharp_world
from tests.world import World

TOLERANCE = 1e-4
PAIR = ["root", "t", "chunk"]
Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _without_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps run as plain checkpointed functions."""

    def submit(self: Any, home: Home, inputs: Any, config: Any, *, label: str, runner: Any = None) -> Any:
        found = self.run(home, inputs, config)
        return lambda: found

    monkeypatch.setattr(Step, "submit", submit)
    monkeypatch.setattr(Step, "__call__", lambda self, *args, label: self.run(*args))


def build(world: World) -> str:
    """Round 1 of the world, through the stages of its recipe."""
    this = Round(
        home=world.home,
        number=1,
        config=world.config,
        options=NoOptions(),
        corpus=world.corpus,
        policy=policy_inputs(world.policy, world.folder, world.config.numeric),
        embedder=EmbedderConfig(),
        index=IndexConfig(),
    )
    recipe = recipe_named(world.config.recipe)
    for stage in recipe.stages:
        stage.run(this)
    tables = RoundTables.of(this)
    manifest = round_manifest(this, recipe, tables, Standing())
    release()
    return publish_version(world.home, manifest, tables.files())


def budgeted(world: World, **options: Any) -> World:
    document = world.config.verification.model_dump() | options
    verification = VerificationConfig.model_validate(document)
    return replace(world, config=world.config.model_copy(update={"verification": verification}))


def table(home: Home, version: str, name: str) -> pl.DataFrame:
    names = load_manifest(home, version).names(name)
    return pl.concat([pl.read_parquet(home / version_uri(version) / name) for name in names])


def literal_stops(passes: pl.DataFrame, verdicts: pl.DataFrame, *, quota: int, most: int, wave: int) -> None:
    """Every root stopped where a reader of the rule would have stopped it."""
    kept = set(verdicts.filter("kept").select("root", "chunk").iter_rows())
    for (root,), rows in passes.sort("place").group_by("root", maintain_order=True):
        order = rows.to_dicts()
        made, positives = 0, 0
        while made < min(most, len(order)) and positives < quota:
            batch = order[made : min(made + wave, most)]
            positives += sum((root, row["chunk"]) in kept for row in batch)
            made += len(batch)
        assert [row["verified"] for row in order] == [place < made for place in range(len(order))]
        reason = None if made == len(order) else "quota" if positives >= quota else "budget"
        assert {row["reason"] for row in order[made:]} <= {reason}


def test_a_budgeted_round_is_a_part_of_the_exhaustive_one(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = sharp_world(home, tmp_path, monkeypatch)
    everything = build(world)
    whole = load_manifest(home, everything)
    assert "unverified" not in whole.funnel
    assert not {"ordering", "ordered-verification"} & whole.code_versions.keys()
    assert not whole.names("passes")

    curves = yield_report(home, everything)
    probe = world.config.roots.probe_roots
    train = table(home, everything, "verdicts").filter(pl.col("root") >= probe)
    assert curves.passes + curves.learned_passes == train.select("root", "chunk").n_unique()
    kept = train.filter("kept").select("root", "chunk").n_unique()
    assert curves.positives + curves.learned_positives == kept

    tally.clear()
    version = build(budgeted(world, ordering="expected-yield", quota=2, passes_per_root=9, wave=2))
    found = load_manifest(home, version)
    assert tally["computed"] <= 1 + 3 + 3 + 1, "roots to candidates, the first shard and the probe set were there"
    assert {"ordering", "ordered-verification"} <= found.code_versions.keys()
    assert found.funnel["unverified"] > 0
    with pytest.raises(InputError, match="did not verify every candidate"):
        yield_report(home, version)
    assert found.funnel["verdicts"] + found.funnel["unverified"] == whole.funnel["verdicts"]
    names = ("candidates", "verdicts", "passes", "ordering", "roots")
    candidates, verdicts, passes, model, roots = (table(home, version, name) for name in names)
    assert candidates.equals(table(home, everything, "candidates"))
    before = table(home, everything, "verdicts")
    both = verdicts.join(before, on=PAIR, suffix="_all")
    assert len(both) == len(verdicts)
    for column in ("entropy_before", "entropy_after", "nll_after", "gain"):
        assert (both[column] - both[f"{column}_all"]).abs().max() <= TOLERANCE, column
    assert both["kept"].equals(both["kept_all"]), "the world has a pair on the border; change its seed"
    assert 0 < verdicts["kept"].sum() < before["kept"].sum()

    literal_stops(passes, verdicts, quota=2, most=9, wave=2)
    assert {"quota", None} <= set(passes["reason"].to_list())
    free = roots.with_row_index("root").filter(pl.col("role") == "probe")["root"].to_list()
    assert not set(free) & set(passes["root"].to_list()), "the probe set has no budget"
    assert model["feature"][0] == "intercept"
    assert {"budgeted_mean_gain", "exhaustive_kept_literal_share", "passes_left_out"} <= found.figures.keys()

    report = audit_version(home, version)
    assert report.exit_code == 0, [finding.line for finding in report.findings if finding.status == "failed"]
    assert {"every root stopped where its budget says", MODEL, EXPECTED} <= {
        finding.check for finding in report.findings if finding.status == "passed"
    }
    tokenizer = load_tokenizer(world.folder)

    def tokenise(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    for name, column, check in (("ordering", "weight", MODEL), ("passes", "expected", EXPECTED)):
        copied = edited(home, version, found, name, lambda rows, c=column: rows[-1].update({c: rows[-1][c] + 0.01}))
        subject = Subject(home, copied, found, world.corpus)
        findings = audit_expectations(subject, tokenise)
        assert check in {finding.check for finding in findings if finding.status == "failed"}
    tally.clear()
    assert build(budgeted(world, ordering="expected-yield", quota=2, passes_per_root=9, wave=2)) == version
    assert tally["computed"] == 0


EDITS: dict[str, tuple[Callable[[Rows], Any], str]] = {
    "every candidate of a root with a budget has its pass": (lambda rows: rows.pop(), "a pass not listed"),
    "every pass stands where the order puts it": (
        lambda rows: (rows[0].update(place=1), rows[1].update(place=0)),
        "two in the wrong order",
    ),
    "every pass has the best rank of its candidates": (lambda rows: rows[0].update(rank=40), "another rank"),
    "no pass that was left out has a verdict": (
        lambda rows: rows[0].update(verified=False, reason="budget"),
        "one that was made",
    ),
    "every pass that was made has its verdicts": (
        lambda rows: next(row for row in rows if not row["verified"]).update(verified=True, reason=None),
        "one that was not made",
    ),
    "every root stopped where its budget says": (
        lambda rows: next(row for row in rows if not row["verified"]).update(reason="floor"),
        "another reason",
    ),
    "every pass is of a candidate that was not excluded": (lambda rows: rows[0].update(chunk=0), "another chunk"),
    "no probe root has a budget": (lambda rows: rows[0].update(root=0), "a probe root"),
}


def test_what_a_budget_left_out_can_not_be_hidden(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = sharp_world(home, tmp_path, monkeypatch)
    version = build(budgeted(world, ordering="rank", passes_per_root=5))
    manifest = load_manifest(home, version)
    passes = table(home, version, "passes")
    assert passes["expected"].null_count() == len(passes)
    literal_stops(passes, table(home, version, "verdicts"), quota=10**6, most=5, wave=10**6)
    assert not manifest.names("ordering")
    assert not failed(home, version, manifest, audit_tables)

    for check, (edit, what) in EDITS.items():
        copied = edited(home, version, manifest, "passes", edit)
        assert check in failed(home, copied, manifest, audit_passes), what

    exhaustive = manifest.config | {"verification": world.config.verification.exhaustive.model_dump()}
    found = failed(home, version, manifest.model_copy(update={"config": exhaustive}), audit_passes)
    assert found == {"a round without a budget leaves nothing out"}
    learned = manifest.config | {"verification": manifest.config["verification"] | {"ordering": "expected-yield"}}
    changed = manifest.model_copy(update={"config": learned})
    found = failed(home, version, changed, audit_passes)
    assert "no root of the shards that were learned from has a budget" in found
    assert "every pass has an expectation where the order needs one" in found


def edited(home: Home, version: str, manifest: Manifest, name: str, edit: Callable[[Rows], Any]) -> str:
    """A copy of the version in which the rows of a table's first shard are others."""
    copied = "f" * 64
    shutil.rmtree(home / version_uri(copied), ignore_errors=True)
    shutil.copytree(home / version_uri(version), home / version_uri(copied))
    file = manifest.names(name)[0]
    rows = pl.read_parquet(home / version_uri(version) / file).to_dicts()
    edit(rows)
    write_table(home.path, f"{version_uri(copied)}/{file}", TABLES[name], rows)
    return copied


def failed(home: Home, version: str, manifest: Manifest, audit: Callable[[Subject], Any]) -> set[str]:
    subject = Subject(home, version, manifest, None)
    return {finding.check for finding in audit(subject) if finding.status == "failed"}
