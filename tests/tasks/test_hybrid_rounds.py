"""A hybrid retrieval is the literal one on both engines, its rounds are audit-proof, and switched off it is nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from qdrant_client import QdrantClient

from models.embedders import EmbedderConfig
from storage.campaigns import RoundRecord, record_round, start_campaign
from storage.digests import digest_json
from storage.errors import IntegrityError
from storage.home import Home
from storage.manifests import Manifest
from storage.refs import Ref
from storage.tables import read_table
from storage.vectors import IndexConfig, fill
from storage.vectors_server import ServerSettings, open_server_index
from storage.versions import load_manifest, publish_version, table_refs
from storage.word_index import ensure_words
from tasks.audit.checks import Deeper, audit_version
from tasks.audit.rebuilding import CHECK as REBUILT
from tasks.audit.rebuilding import built_again, scratch_home
from tasks.resources import release
from tasks.rounds.publishing import with_documents
from tasks.screening.fusion import fused
from tasks.screening.retrieval import RetrievalConfig, RetrievalInputs, retrieve
from tests import literal_words
from tests.world import World, embed, make_world

# The client's in-memory engine says that it searches exactly anyway.
pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

ROUND: dict[str, Any] = {
    "round": 1, "recipe": "policylong", "parent_policy": None, "parent_version": None, "files": {},
    "numeric": {"device": "cpu", "dtype": "float32", "threads": 1, "versions": {}},
    **{name: {} for name in ("funnel", "tokens", "seeds", "code_versions", "figures")},
}  # fmt: skip
places = st.lists(st.integers(0, 30), max_size=31, unique=True)


@given(lists=st.lists(places, max_size=3), k=st.integers(0, 100))
def test_fusion_is_the_sum_of_reciprocal_places_ties_by_number(lists: list[list[int]], k: int) -> None:
    assert fused(lists, k) == literal_words.fused(lists, k)
    assert fused(lists[::-1], k) == fused(lists, k)


@given(one=places, k=st.integers(0, 100))
def test_one_list_alone_stays_as_it_is(one: list[int], k: int) -> None:
    assert fused([one, []], k) == fused([one, one], k) == one


def test_switched_off_it_is_in_no_digest() -> None:
    off = RetrievalConfig(top_k=6, bm25_k1=2.0)
    assert off.model_dump(mode="json") == {"top_k": 6, "overfetch": 2.0, "copy_characters": 64}
    on = off.model_copy(update={"hybrid": True})
    document = on.model_dump(mode="json")
    assert document["bm25_k1"] == 2.0
    assert RetrievalConfig.model_validate(document) == on
    assert len({digest_json(c.model_dump(mode="json")) for c in (off, on, on.model_copy(update={"fusion_k": 1}))}) == 3
    for wrong in ({"bm25_k1": -0.1}, {"bm25_k1": float("inf")}, {"bm25_b": 1.1}, {"fusion_k": -1}):
        with pytest.raises(ValidationError):
            RetrievalConfig.model_validate({"hybrid": True, **wrong})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, str]]:
    """A hybrid round of the small world, built by the product's stages and published in the world's home."""
    folder = tmp_path_factory.mktemp("hybrid")
    with pytest.MonkeyPatch.context() as patch:
        world = make_world(Home.open(folder / "home"), folder / "scratch", patch)
        changes = {
            "retrieval": world.config.retrieval.model_copy(update={"hybrid": True}),
            "entropy": world.config.entropy.model_copy(update={"query_radius": 16}),
        }
        world = replace(world, config=world.config.model_copy(update=changes))
        yield world, build(world, folder / "apart")
        release()


def build(world: World, folder: Path) -> str:
    """The version of round 1, recorded in a campaign."""
    config = world.config.model_dump(mode="json")
    facts = {"config": config, "config_digest": digest_json(config), "corpus": world.corpus.digest}
    wanted = Manifest.model_validate(
        {**ROUND, **facts, "embedder": world.corpus.embedder_digest, "policy": world.policy}
    )
    apart = scratch_home(world.home, folder, "", wanted)
    manifest, tables = built_again(apart, wanted, EmbedderConfig())
    release()
    manifest, files = with_documents(apart, manifest, tables.files())
    sources = {name: apart / source.uri if isinstance(source, Ref) else source for name, source in files.items()}
    version = publish_version(world.home, manifest, sources)
    start_campaign(world.home, "small", {"corpus": {"embedder": EmbedderConfig().model_dump(mode="json")}})
    record_round(world.home, "small", RoundRecord(round=1, version=version, policy=world.policy))
    return version


def first_shard(world: World, version: str) -> tuple[RetrievalInputs, Ref]:
    """What the first shard's candidates came from, and their table."""
    manifest = load_manifest(world.home, version)
    positions, roots, candidates = (
        table_refs(version, manifest, name)[0] for name in ("positions", "roots", "candidates")
    )
    corpus, engines = world.corpus.digest, {"embedder": EmbedderConfig(), "index": IndexConfig()}
    return RetrievalInputs(positions=positions, roots=roots, corpus=corpus, **engines), candidates


def rows(home: Home, version: str, table: str) -> list[dict[str, Any]]:
    refs = table_refs(version, load_manifest(home, version), table)
    return [row for ref in refs for row in read_table(home.path, ref).to_dicts()]


def literal_candidates(world: World, positions: list[dict[str, Any]]) -> dict[tuple[int, int], list[tuple[int, float]]]:
    """(chunk, cosine) of each position's fused list, before exclusions end it."""
    texts = [chunk["text"] for chunk in world.chunks]
    vectors = np.stack([embed(text) for text in texts]).astype(np.float64)
    config = world.config.retrieval
    top = round(config.top_k * config.overfetch)
    found = {}
    for row in positions:
        cosines = np.round(vectors @ embed(row["query"]).astype(np.float64), 6)
        nearest = literal_words.best(dict(enumerate(cosines.tolist())), top)
        worded = literal_words.best(literal_words.bm25(texts, row["query"]), top)
        order = literal_words.fused([nearest, worded], 60)[:top]
        found[row["root"], row["t"]] = [(chunk, float(cosines[chunk])) for chunk in order]
    return found


def test_a_hybrid_round_is_the_literal_one_and_passes_its_audit(built: tuple[World, str]) -> None:
    world, version = built
    positions, candidates = (rows(world.home, version, name) for name in ("positions", "candidates"))
    literal = literal_candidates(world, positions)
    for row in positions:
        key = (row["root"], row["t"])
        mine = [found for found in candidates if (found["root"], found["t"]) == key]
        assert [found["rank"] for found in mine] == list(range(len(mine)))
        expected = literal[key][: len(mine)]
        assert [found["chunk"] for found in mine] == [chunk for chunk, _ in expected]
        assert [found["score"] for found in mine] == pytest.approx([score for _, score in expected], abs=2e-6)
        eligible = sum(found["excluded"] is None for found in mine)
        assert eligible == world.config.retrieval.top_k or len(mine) == len(literal[key])
    falling = [a["score"] >= b["score"] for a, b in pairwise(candidates) if b["rank"]]
    assert not all(falling), "words brought chunks up that vectors alone would not"

    report = audit_version(world.home, version, deeper=Deeper(rebuild=True))
    assert [finding.line for finding in report.findings if finding.status == "failed"] == []
    (rebuilt,) = [finding for finding in report.findings if finding.check == REBUILT]
    assert (rebuilt.status, rebuilt.detail.split(",")[0]) == ("passed", f"gives version {version[:12]} again")


def test_both_engines_give_the_same_table(built: tuple[World, str], monkeypatch: pytest.MonkeyPatch) -> None:
    (world, version), client = built, QdrantClient(":memory:")
    home, corpus, config = world.home, world.corpus, world.config.retrieval
    inputs, candidates = first_shard(world, version)
    shape = (corpus.chunks.rows, corpus.dimension)
    settings, server = ServerSettings("http://fake"), IndexConfig(engine="server", url="http://fake")
    vectors = open_server_index(settings, "v", "a", shape, lambda i: fill(home, i, corpus), exact=True, client=client)
    monkeypatch.setattr("tasks.screening.retrieval.index_for", lambda home, corpus, index: vectors)
    monkeypatch.setattr(
        "tasks.screening.retrieval.words_for",
        lambda home, corpus, index, bm25: ensure_words(home, corpus, server, bm25, client=client),
    )
    assert retrieve.run(home, inputs, config)["candidates"].sha256 == candidates.sha256
    plain = config.model_copy(update={"hybrid": False})
    assert retrieve.run(home, inputs, plain)["candidates"].sha256 != candidates.sha256


def test_words_are_made_when_first_asked_for_and_damaged_ones_are_one_clear_line(built: tuple[World, str]) -> None:
    world, version = built
    inputs, _ = first_shard(world, version)
    release()
    plain, hybrid = world.config.retrieval.model_copy(update={"hybrid": False, "top_k": 3}), world.config.retrieval
    retrieve.run(world.home, inputs, plain)
    assert not list((world.home / "index").glob("words-*"))
    retrieve.run(world.home, inputs, hybrid.model_copy(update={"fusion_k": 2}))
    release()
    (folder,) = (world.home / "index").glob("words-*")
    for path in (folder / "shard").rglob("*.json"):
        path.write_text("{")
    with pytest.raises(IntegrityError, match=r"vector index in .*words-.* can't be used") as caught:
        retrieve.run(world.home, inputs, hybrid.model_copy(update={"fusion_k": 1}))
    assert "Delete that folder" in caught.value.hint
