"""A whole round of a small world against the literal, slow method (tests/literal_method.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.embedders import EmbedderConfig
from storage.home import Home
from storage.refs import Ref
from storage.tables import read_table
from storage.vectors import IndexConfig
from tasks.corpus.tokenizing import tokenizer_digest
from tasks.resources import release
from tasks.rounds.building import policy_inputs
from tasks.samples.assembly import AssemblyInputs, assemble
from tasks.screening.entropy import EntropyInputs, screen_entropy
from tasks.screening.negatives import NegativesInputs, find_negatives
from tasks.screening.retrieval import RetrievalInputs, retrieve
from tasks.screening.roots import RootsInputs, cut_roots
from tasks.screening.verification import VerificationInputs, verify
from tests import literal_method
from tests.literal_method import Chunk, LiteralPolicy, Root
from tests.world import World, embed, make_world

TOLERANCE = 1e-4


def chunks_of(world: World) -> list[Chunk]:
    return [Chunk(row["doc"], row["text"]) for row in world.chunks]


def root_of(world: World, row: dict[str, Any]) -> Root:
    text = world.documents[row["doc"]]["text"][row["char_start"] : row["char_end"]]
    return Root(row["doc"], text, tuple(row["input_ids"]))


def cosines(world: World, text: str) -> list[float]:
    """Cosine of a text with every chunk."""
    vectors = np.stack([embed(chunk["text"]) for chunk in world.chunks])
    return [float(score) for score in literal_method.cosines(embed(text), vectors)]


@pytest.fixture
def tables(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A round of the product: world and {table: list of rows}."""
    world = make_world(home, tmp_path, monkeypatch)
    config, policy = world.config, policy_inputs(world.policy, world.folder, world.config.numeric)
    tokenizer = tokenizer_digest(world.folder)
    roots = cut_roots.run(
        home,
        RootsInputs(
            documents=world.corpus.documents, tokenizer=tokenizer, rounds=2, tokenizer_folder=str(world.folder)
        ),
        config.roots,
    )["roots"]
    found: dict[str, Ref] = {"roots": roots}
    found |= screen_entropy.run(
        home, EntropyInputs(roots=roots, first_root=2, stop_root=9, policy=policy), config.entropy
    )
    retrieval = RetrievalInputs(
        positions=found["positions"], roots=roots, corpus="world", embedder=EmbedderConfig(), index=IndexConfig()
    )
    found |= retrieve.run(home, retrieval, config.retrieval)
    verification = VerificationInputs(
        positions=found["positions"], candidates=found["candidates"], roots=roots, corpus="world", policy=policy
    )
    found |= verify.run(home, verification, config.verification)
    search = NegativesInputs(verdicts=found["verdicts"], roots=roots, corpus="world", index=IndexConfig())
    found |= find_negatives.run(home, search, config.negatives)
    assembly = AssemblyInputs(
        shards=((2, 9),), verdicts=(found["verdicts"],), negatives=(found["negatives"],), roots=roots, corpus="world",
        tokenizer=tokenizer, separator=config.verification.separator, negatives_per_positive=1, policy=policy,
    )  # fmt: skip
    found |= assemble.run(home, assembly, config.assembly)
    release()
    return world, {name: read_table(home.path, ref).to_dicts() for name, ref in found.items()}


def test_a_round_is_the_literal_algorithms(tables: Any) -> None:
    world, rows = tables
    literal, config, chunks = LiteralPolicy.load(world.folder), world.config, chunks_of(world)
    roots = {n: root_of(world, rows["roots"][n]) for n in range(2, 9)}
    positions = {(row["root"], row["t"]): row for row in rows["positions"]}
    predictions = {}
    for number, root in roots.items():
        assert literal.tokens(root.text) == root.ids
        predictions[number] = literal.root_predictions(root.ids)
        entropies = {t: prediction.entropy for t, prediction in predictions[number].items()}
        tau, chosen = literal_method.selected(entropies, config.entropy.alpha, config.entropy.min_context)
        for t, entropy in entropies.items():
            if abs(entropy - tau) < TOLERANCE:
                continue
            assert ((number, t) in positions) == (t in chosen)
            if t in chosen:
                row = positions[number, t]
                assert row["entropy"] == pytest.approx(entropy, abs=TOLERANCE)
                assert row["threshold"] == pytest.approx(tau, abs=TOLERANCE)
                assert row["query"] == literal.query(root.ids, t, config.entropy.query_radius)
    assert len(positions) >= 10, "the world is too certain to test anything"

    candidates: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in rows["candidates"]:
        candidates.setdefault((row["root"], row["t"]), []).append(row)
    verdicts = {(row["root"], row["t"], row["chunk"]): row for row in rows["verdicts"]}
    met, kept = set(), 0
    for (number, t), position in positions.items():
        root, before = roots[number], predictions[number][t]
        scores = cosines(world, position["query"])
        wanted = literal_method.candidates(
            literal_method.neighbours(scores), chunks, root, top_k=config.retrieval.top_k,
            looked_at=round(config.retrieval.top_k * config.retrieval.overfetch),
            length=config.retrieval.copy_characters,
        )  # fmt: skip
        found = candidates[number, t]
        assert [row["chunk"] for row in found] == [chunk for chunk, _ in wanted]
        assert [row["score"] for row in found] == pytest.approx([scores[chunk] for chunk, _ in wanted], abs=1e-5)
        for row, (chunk, reasons) in zip(found, wanted, strict=True):
            met.add(row["excluded"])
            assert row["excluded"] in reasons if reasons else row["excluded"] is None
            if reasons:
                assert (number, t, chunk) not in verdicts
                continue
            verdict, expected = verdicts[number, t, chunk], literal.verdict(chunks[chunk].text, root.ids, t, before)
            assert verdict["entropy_before"] == pytest.approx(expected.before.entropy, abs=TOLERANCE)
            assert verdict["entropy_after"] == pytest.approx(expected.after.entropy, abs=TOLERANCE)
            assert verdict["nll_before"] == pytest.approx(expected.before.nll, abs=5 * TOLERANCE)
            assert verdict["nll_after"] == pytest.approx(expected.after.nll, abs=5 * TOLERANCE)
            assert verdict["gain"] == pytest.approx(expected.gain, abs=TOLERANCE)
            assert verdict["literal"] == expected.literal
            if abs(expected.gain - config.verification.epsilon) > TOLERANCE:
                assert verdict["kept"] == (expected.gain > config.verification.epsilon)
                kept += verdict["kept"]
    assert len(verdicts) == sum(row["excluded"] is None for row in rows["candidates"])
    assert met == {None, "root-document", "copy"}, "a rule was never exercised"
    assert kept >= 5


def test_negatives_are_the_positives_neighbours(tables: Any) -> None:
    world, rows = tables
    config, chunks = world.config.negatives, chunks_of(world)
    positives = literal_method.once_per_root((r["root"], r["t"], r["chunk"]) for r in rows["verdicts"] if r["kept"])
    found: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in rows["negatives"]:
        found.setdefault((row["root"], row["seed_chunk"]), []).append(row)
    assert set(found) == set(positives)
    for (number, seed), neighbours in found.items():
        scores = cosines(world, chunks[seed].text)
        expected = [chunk for chunk in literal_method.neighbours(scores) if chunk != seed][: config.depth]
        assert [row["chunk"] for row in neighbours] == expected
        own = [chunk for root, chunk in positives if root == number]
        for row in neighbours:
            reasons = literal_method.negative_reasons(
                row["chunk"], seed, scores[row["chunk"]], own, chunks, root_of(world, rows["roots"][number]),
                length=config.copy_characters, copy_cosine=config.copy_cosine,
            )  # fmt: skip
            assert row["kept"] == (not reasons)
            assert row["reason"] in reasons if reasons else row["reason"] is None


def test_every_dependency_and_segment_points_at_what_it_says(tables: Any) -> None:
    world, rows = tables
    literal = LiteralPolicy.load(world.folder)
    chunk_of = {chunk["chunk_id"]: (row, chunk) for row, chunk in enumerate(world.chunks)}
    roots = {root["root_id"]: (row, root) for row, root in enumerate(rows["roots"])}
    verdicts = {(row["root"], row["t"], row["chunk"]): row for row in rows["verdicts"]}
    assert rows["samples"]
    for sample in rows["samples"]:
        ids, segments = sample["input_ids"], sample["segments"]
        assert len(ids) == sample["length"] == world.config.assembly.target_tokens
        separator = list(literal.separator)
        end = -len(separator)
        for segment in segments:
            assert ids[end if end >= 0 else 0 : segment["start"]] == (separator if end >= 0 else [])
            if segment["kind"] == "root":
                origin = roots[segment["root_id"]][1]["input_ids"]
                assert segment["source_start"] == 0
            else:
                origin = list(literal.tokens(chunk_of[segment["chunk_id"]][1]["text"]))
                assert segment["kind"] == "negative" or segment["source_start"] == 0
            assert ids[segment["start"] : segment["end"]] == origin[segment["source_start"] :]
            end = segment["end"]
        assert end == len(ids)
        kinds = [segment["kind"] for segment in segments]
        assert kinds == sorted(kinds, key=lambda kind: kind == "root"), "a root stands before a context"
        start = {s["root_id"]: s["start"] for s in segments if s["kind"] == "root"}
        ends = {s["chunk_id"]: s["end"] for s in segments if s["kind"] == "positive"}
        assert sample["dependencies"]
        for dependency in sample["dependencies"]:
            root, row = roots[dependency["root_id"]]
            assert dependency["position"] == start[dependency["root_id"]] + dependency["t"]
            assert ids[dependency["position"]] == row["input_ids"][dependency["t"]]
            assert dependency["distance"] == dependency["position"] - ends[dependency["chunk_id"]]
            verdict = verdicts[root, dependency["t"], chunk_of[dependency["chunk_id"]][0]]
            assert verdict["kept"]
            assert dependency["gain"] == pytest.approx(verdict["gain"])
