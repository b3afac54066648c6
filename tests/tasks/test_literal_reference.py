"""A whole round against the literal, slow algorithm: one full forward pass per position and candidate, softmax in
float64, cosine by hand, and every rule of the method written out once more in the plainest way.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.embedders import EmbedderConfig
from storage.home import Home
from storage.refs import Ref
from storage.tables import read_table
from storage.vectors import IndexConfig
from tasks.assembly import AssemblyInputs, assemble
from tasks.building import policy_inputs
from tasks.entropy import EntropyInputs, screen_entropy
from tasks.negatives import NegativesInputs, find_negatives
from tasks.resources import release
from tasks.retrieval import RetrievalInputs, retrieve
from tasks.roots import RootsInputs, cut_roots
from tasks.tokenizing import tokenizer_digest
from tasks.verification import VerificationInputs, verify
from tests.world import World, embed, make_world

TOLERANCE = 1e-4


class Literal:
    """The method, word for word."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.model: Any = AutoModelForCausalLM.from_pretrained(world.folder).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(world.folder)

    @torch.no_grad()
    def prediction(self, ids: list[int], t: int) -> tuple[float, float]:
        """Entropy and nll of the prediction of ids[t], from the logits at t - 1."""
        p = torch.softmax(self.model(torch.tensor([ids])).logits[0, t - 1].double(), -1).tolist()
        return -sum(x * math.log(x) for x in p if x > 0), -math.log(p[ids[t]])

    def chunk(self, row: int) -> list[int]:
        return list(self.tokenizer(self.world.chunks[row]["text"], add_special_tokens=False)["input_ids"])

    def copies(self, a: str, b: str, length: int) -> bool:
        a, b = " ".join(a.split()), " ".join(b.split())
        return any(a[i : i + length] in b for i in range(len(a) - length + 1))

    def excluded(self, root: dict[str, Any], chunk: int) -> str | None:
        row = self.world.chunks[chunk]
        if row["doc"] == root["doc"]:
            return "root-document"
        text = self.world.documents[root["doc"]]["text"][root["char_start"] : root["char_end"]]
        return "copy" if self.copies(row["text"], text, self.world.config.retrieval.copy_characters) else None

    def neighbours(self, vector: Any) -> list[tuple[int, float]]:
        """(chunk, cosine) of every chunk, nearest first."""
        found = []
        for row, chunk in enumerate(self.world.chunks):
            other = embed(chunk["text"]).astype(np.float64)
            found.append((row, round(float(np.dot(vector.astype(np.float64), other)), 6)))
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))


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
    literal, config = Literal(world), world.config
    roots = {n: rows["roots"][n] for n in range(2, 9)}
    positions = {(row["root"], row["t"]): row for row in rows["positions"]}
    expected_positions = set()
    for number, root in roots.items():
        ids = root["input_ids"]
        text = world.documents[root["doc"]]["text"][root["char_start"] : root["char_end"]]
        assert literal.tokenizer(text, add_special_tokens=False)["input_ids"] == ids
        entropies = {t: literal.prediction(ids, t)[0] for t in range(config.entropy.min_context, len(ids))}
        mean = sum(entropies.values()) / len(entropies)
        std = math.sqrt(sum((e - mean) ** 2 for e in entropies.values()) / len(entropies))
        tau = mean + config.entropy.alpha * std
        for t, entropy in entropies.items():
            if abs(entropy - tau) < TOLERANCE:
                continue
            assert ((number, t) in positions) == (entropy > tau)
            if entropy > tau:
                expected_positions.add((number, t))
                row = positions[number, t]
                assert row["entropy"] == pytest.approx(entropy, abs=TOLERANCE)
                assert row["threshold"] == pytest.approx(tau, abs=TOLERANCE)
                radius = config.entropy.query_radius
                assert row["query"] == literal.tokenizer.decode(ids[max(0, t - radius) : t + radius + 1])
    assert len(expected_positions) >= 10, "the world is too certain to test anything"

    candidates: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in rows["candidates"]:
        candidates.setdefault((row["root"], row["t"]), []).append(row)
    verdicts = {(row["root"], row["t"], row["chunk"]): row for row in rows["verdicts"]}
    reasons, kept = set(), 0
    for (number, t), position in positions.items():
        root, ids = roots[number], roots[number]["input_ids"]
        nearest = literal.neighbours(embed(position["query"]))[
            : round(config.retrieval.top_k * config.retrieval.overfetch)
        ]
        wanted: list[tuple[int, float, str | None]] = []
        for chunk, score in nearest:
            if sum(reason is None for _, _, reason in wanted) == config.retrieval.top_k:
                break
            wanted.append((chunk, score, literal.excluded(root, chunk)))
        found = [(row["chunk"], row["score"], row["excluded"]) for row in candidates[number, t]]
        assert [(c, r) for c, _, r in found] == [(c, r) for c, _, r in wanted]
        assert [s for _, s, _ in found] == pytest.approx([s for _, s, _ in wanted], abs=1e-5)
        reasons |= {reason for _, _, reason in wanted}
        for chunk, _, reason in wanted:
            if reason is not None:
                assert (number, t, chunk) not in verdicts
                continue
            verdict = verdicts[number, t, chunk]
            front = literal.chunk(chunk) + list(literal.tokenizer("\n\n", add_special_tokens=False)["input_ids"])
            after, nll = literal.prediction(front + ids, len(front) + t)
            before, nll_before = literal.prediction(ids, t)
            gain = (before - after) / before
            assert verdict["entropy_after"] == pytest.approx(after, abs=TOLERANCE)
            assert verdict["nll_after"] == pytest.approx(nll, abs=5 * TOLERANCE)
            assert verdict["nll_before"] == pytest.approx(nll_before, abs=5 * TOLERANCE)
            assert verdict["gain"] == pytest.approx(gain, abs=TOLERANCE)
            pairs = list(zip(literal.chunk(chunk), literal.chunk(chunk)[1:], strict=False))
            assert verdict["literal"] == ((ids[t - 1], ids[t]) in pairs)
            if abs(gain - config.verification.epsilon) > TOLERANCE:
                assert verdict["kept"] == (gain > config.verification.epsilon)
                kept += verdict["kept"]
    assert len(verdicts) == sum(row["excluded"] is None for row in rows["candidates"])
    assert reasons == {None, "root-document", "copy"}, "a rule was never exercised"
    assert kept >= 5


def test_negatives_are_the_positives_neighbours(tables: Any) -> None:
    world, rows = tables
    literal, config = Literal(world), world.config.negatives
    positives: dict[int, set[int]] = {}
    for row in rows["verdicts"]:
        if row["kept"]:
            positives.setdefault(row["root"], set()).add(row["chunk"])
    found: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in rows["negatives"]:
        found.setdefault((row["root"], row["seed_chunk"]), []).append(row)
    assert {(root, chunk) for root, chunks in positives.items() for chunk in chunks} == set(found)
    for (root, seed), neighbours in found.items():
        vector = embed(world.chunks[seed]["text"])
        expected = [(c, s) for c, s in literal.neighbours(vector) if c != seed][: config.depth]
        assert [row["chunk"] for row in neighbours] == [chunk for chunk, _ in expected]
        for row, (chunk, score) in zip(neighbours, expected, strict=True):
            if chunk in positives[root]:
                reason: str | None = "positive"
            elif score > config.copy_cosine or literal.copies(
                world.chunks[chunk]["text"], world.chunks[seed]["text"], config.copy_characters
            ):
                reason = "near-duplicate"
            else:
                text_root = rows["roots"][root]
                reason = "root-document" if world.chunks[chunk]["doc"] == text_root["doc"] else None
                text = world.documents[text_root["doc"]]["text"][text_root["char_start"] : text_root["char_end"]]
                if reason is None and literal.copies(world.chunks[chunk]["text"], text, config.copy_characters):
                    reason = "copy"
            assert row["reason"] == reason
            assert row["kept"] == (reason is None)


def test_every_dependency_and_segment_points_at_what_it_says(tables: Any) -> None:
    world, rows = tables
    literal = Literal(world)
    chunk_of = {chunk["chunk_id"]: (row, chunk) for row, chunk in enumerate(world.chunks)}
    root_of = {root["root_id"]: (row, root) for row, root in enumerate(rows["roots"])}
    verdicts = {(row["root"], row["t"], row["chunk"]): row for row in rows["verdicts"]}
    assert rows["samples"]
    for sample in rows["samples"]:
        ids, segments = sample["input_ids"], sample["segments"]
        assert len(ids) == sample["length"] == world.config.assembly.target_tokens
        separator = list(literal.tokenizer("\n\n", add_special_tokens=False)["input_ids"])
        end = -len(separator)
        for segment in segments:
            assert ids[end if end >= 0 else 0 : segment["start"]] == (separator if end >= 0 else [])
            if segment["kind"] == "root":
                origin = root_of[segment["root_id"]][1]["input_ids"]
                assert segment["source_start"] == 0
            else:
                origin = literal.chunk(chunk_of[segment["chunk_id"]][0])
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
            root, row = root_of[dependency["root_id"]]
            assert dependency["position"] == start[dependency["root_id"]] + dependency["t"]
            assert ids[dependency["position"]] == row["input_ids"][dependency["t"]]
            assert dependency["distance"] == dependency["position"] - ends[dependency["chunk_id"]]
            verdict = verdicts[root, dependency["t"], chunk_of[dependency["chunk_id"]][0]]
            assert verdict["kept"]
            assert dependency["gain"] == pytest.approx(verdict["gain"])
