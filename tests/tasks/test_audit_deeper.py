"""Beyond reading: verdicts scored again by the recorded policy, and a round built again from corpus and policy."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.embedders import EmbedderConfig
from storage.campaigns import RoundRecord, record_round, start_campaign
from storage.digests import digest_files, digest_json
from storage.findings import Finding
from storage.home import Home
from storage.manifests import Manifest, entries_of
from storage.refs import Ref
from storage.schemas import TABLES
from storage.tables import read_table, write_table
from storage.versions import load_manifest, publish_version, table_refs
from tasks.audit.checks import Deeper, audit_version
from tasks.audit.rebuilding import CHECK as REBUILT
from tasks.audit.rebuilding import built_again, scratch_home
from tasks.audit.rescoring import CHECK as RESCORED
from tasks.audit.rescoring import SAME_DEVICE, SIXTEEN_BITS, drawn, environment_here, rescore
from tasks.resources import release
from tasks.rounds.publishing import with_documents
from tests.document_rounds import build_document_round
from tests.world import World, make_world

ROUND = {
    "round": 1,
    "recipe": "policylong",
    "parent_policy": None,
    "parent_version": None,
    "files": {},
    "numeric": {"device": "cpu", "dtype": "float32", "threads": 1, "versions": {}},
    "funnel": {},
    "tokens": {},
    "seeds": {},
    "code_versions": {},
    "figures": {},
}


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, monkeypatch_module: pytest.MonkeyPatch) -> tuple[World, str]:
    """A round of the small world, built in a home of its own by the product's stages and published in the first."""
    folder = tmp_path_factory.mktemp("built")
    home = Home.open(folder / "home")
    world = make_world(home, folder / "scratch", monkeypatch_module)
    config = world.config.model_dump(mode="json")
    wanted = Manifest.model_validate(
        {
            **ROUND,
            "config": config,
            "config_digest": digest_json(config),
            "corpus": world.corpus.digest,
            "embedder": world.corpus.embedder_digest,
            "policy": world.policy,
        }
    )
    apart = scratch_home(home, folder / "apart", "", wanted)
    manifest, tables = built_again(apart, wanted, EmbedderConfig())
    release()
    manifest, files = with_documents(apart, manifest, tables.files())
    sources = {name: apart / source.uri if isinstance(source, Ref) else source for name, source in files.items()}
    version = publish_version(home, manifest, sources)
    start_campaign(home, "small", {"corpus": {"embedder": EmbedderConfig().model_dump(mode="json")}})
    record_round(home, "small", RoundRecord(round=1, version=version, policy=world.policy))
    return world, version


def signed(world: World, version: str, table: str, change: Callable[[list[dict[str, Any]]], Any]) -> str:
    """The version of the round with other rows in a table's first shard: every digest of it is right."""
    home, manifest = world.home, load_manifest(world.home, version)
    (old, *_) = table_refs(version, manifest, table)
    rows = read_table(home.path, old).to_dicts()
    change(rows)
    new = write_table(
        home.path, f"work/signed/{table}-{len(list(home.path.glob('work/signed/*')))}", TABLES[table], rows
    )
    name = old.uri.split("/", 2)[2]
    entries = {**manifest.files, **entries_of(home, {name: new})}
    files = {other: home / old.uri.replace(name, other) for other in manifest.files} | {name: home / new.uri}
    return publish_version(home, manifest.model_copy(update={"files": entries}), files)


def only(findings: list[Finding], check: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.check == check]
    return finding


def test_drawn_verdicts_agree_with_the_policy_and_every_deviation_is_named(built: tuple[World, str]) -> None:
    world, version = built
    manifest = load_manifest(world.home, version)
    (finding,) = list(rescore(world.home, version, manifest, 25, 3))
    assert (finding.check, finding.status) == (RESCORED, "passed")
    assert "25 of" in finding.detail
    assert f"tolerance {SAME_DEVICE:g} (float32 on cpu, as recorded)" in finding.detail

    total = sum(ref.rows for ref in table_refs(version, manifest, "verdicts"))

    def change(rows: list[dict[str, Any]]) -> None:
        rows[2]["entropy_after"] += 0.01
        rows[3]["literal"] = not rows[3]["literal"]
        rows[4]["nll_before"] = math.nan

    other = signed(world, version, "verdicts", change)
    *named, summary = list(rescore(world.home, other, load_manifest(world.home, other), total, 0))
    rows = read_table(world.home.path, table_refs(version, manifest, "verdicts")[0]).to_dicts()
    where = [f"root {rows[n]['root']}, t {rows[n]['t']}, chunk {rows[n]['chunk']}: " for n in (2, 3, 4)]
    assert [finding.detail.startswith(start) for finding, start in zip(named, where, strict=True)] == [True] * 3
    assert [
        "entropy_after is" in named[0].detail,
        "literal is" in named[1].detail,
        "nll_before is nan" in named[2].detail,
    ]
    assert {finding.file for finding in named} == {f"versions/{other[:16]}/tables/verdicts-00000.parquet"}
    assert (summary.status, summary.detail[:9]) == ("failed", "3 deviate")


def test_scores_are_those_of_the_whole_model_on_the_concatenated_text(built: tuple[World, str]) -> None:
    """Independent of the scorer: the model's own logits, position by position."""
    world, version = built
    manifest = load_manifest(world.home, version)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(world.folder), AutoTokenizer.from_pretrained(world.folder)
    roots = read_table(world.home.path, table_refs(version, manifest, "roots")[0])["input_ids"].to_list()
    chunks = [chunk["text"] for chunk in world.chunks]

    def entropy(ids: list[int], place: int) -> float:
        with torch.no_grad():
            p = torch.softmax(model(torch.tensor([ids])).logits[0, place - 1].double(), -1)
        return float(-(p * p.log()).sum())

    separator = tokenizer("\n\n", add_special_tokens=False)["input_ids"]
    for row in drawn(world.home, table_refs(version, manifest, "verdicts"), 6, "any"):
        root, front = roots[row["root"]], tokenizer(chunks[row["chunk"]], add_special_tokens=False)["input_ids"]
        whole = [*front, *separator, *root]
        assert entropy(root, row["t"]) == pytest.approx(row["entropy_before"], abs=1e-4)
        assert entropy(whole, len(whole) - len(root) + row["t"]) == pytest.approx(row["entropy_after"], abs=1e-4)


def test_a_draw_is_of_different_rows_of_all_shards_by_its_seed(built: tuple[World, str]) -> None:
    world, version = built
    refs = table_refs(version, load_manifest(world.home, version), "verdicts")
    assert len(refs) > 1
    every = pl.concat(read_table(world.home.path, ref) for ref in refs).to_dicts()
    one, again, other = (drawn(world.home, refs, 20, salt) for salt in ("a", "a", "b"))
    assert one == again != other
    keys = [(row["root"], row["t"], row["chunk"]) for row in one]
    assert len(set(keys)) == 20
    assert len({row["file"] for row in one}) > 1
    plain = [{name: value for name, value in row.items() if name != "file"} for row in one]
    assert all(row in every for row in plain)
    assert [{**row, "file": ""} for row in drawn(world.home, refs, 10**9, "a")] == [
        {**row, "file": ""} for row in every
    ]


def test_the_tolerance_is_that_of_the_recorded_environment(built: tuple[World, str]) -> None:
    world, version = built
    manifest = load_manifest(world.home, version)
    elsewhere = manifest.numeric.model_copy(update={"device": "cuda", "dtype": "bfloat16"})
    environment = environment_here(manifest.model_copy(update={"numeric": elsewhere}))
    assert environment.tolerance == SIXTEEN_BITS
    assert environment.said.startswith("bfloat16 on ")


def test_a_recipe_without_verdicts_has_nothing_to_score_again(home: Home) -> None:
    version = build_document_round(home, "standard").version
    (finding,) = list(rescore(home, version, load_manifest(home, version), 5, 0))
    assert (finding.status, finding.detail) == ("not-checkable", "nothing to check: this version has no verdicts")


def test_a_round_built_again_is_the_same_version_and_leaves_nothing_behind(built: tuple[World, str]) -> None:
    world, version = built
    before = {path for path in world.home.path.rglob("*") if "locks" not in path.parts}
    files = digest_files(world.home.path, [p.relative_to(world.home.path).as_posix() for p in before if p.is_file()])
    report = audit_version(world.home, version, deeper=Deeper(verdicts=5, rebuild=True))
    finding = only(list(report.findings), REBUILT)
    assert (
        finding.detail == f"gives version {version[:12]} again, {len(load_manifest(world.home, version).files)} files"
    )
    assert (finding.status, only(list(report.findings), RESCORED).status) == ("passed", "passed")
    assert {path for path in world.home.path.rglob("*") if "locks" not in path.parts} == before
    assert digest_files(world.home.path, files) == files


def test_a_signed_round_that_was_not_built_so_is_found_in_its_first_table_and_row(
    built: tuple[World, str], tmp_path: Path
) -> None:
    world, version = built

    def change(rows: list[dict[str, Any]]) -> None:
        rows[1]["score"] = 0.5
        rows[2]["score"] = 0.5

    other = signed(world, version, "candidates", change)
    record_round(world.home, "small", RoundRecord(round=2, version=other, policy=world.policy))
    rows = read_table(
        world.home.path, table_refs(version, load_manifest(world.home, version), "candidates")[0]
    ).to_dicts()
    finding = only(list(audit_version(world.home, other, deeper=Deeper(rebuild=True)).findings), REBUILT)
    assert finding.status == "failed"
    where = f"root {rows[1]['root']}, t {rows[1]['t']}, chunk {rows[1]['chunk']}"
    said = f"table candidates, shard 0: row 1 ({where}): score is 0.5, built again {rows[1]['score']:.7g}"
    assert said in finding.detail


def test_another_environment_is_told_from_another_content(built: tuple[World, str]) -> None:
    world, version = built
    home, manifest = world.home, load_manifest(world.home, version)
    older = manifest.numeric.model_copy(update={"versions": {**manifest.numeric.versions, "torch": "1.0"}})
    files = {name: home / f"versions/{version[:16]}/{name}" for name in manifest.files}
    other = publish_version(home, manifest.model_copy(update={"numeric": older}), files)
    record_round(home, "small", RoundRecord(round=3, version=other, policy=world.policy))
    finding = only(list(audit_version(home, other, deeper=Deeper(rebuild=True)).findings), REBUILT)
    assert finding.status == "passed", finding
    assert "every table is the same; not the environment of then: torch 1.0 → " in finding.detail
