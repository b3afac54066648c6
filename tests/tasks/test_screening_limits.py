"""Screening at its edges: a shard of no roots, positions without candidates, a position with ten thousand."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.embedders import EmbedderConfig
from storage.home import Home
from storage.refs import Ref
from storage.schemas import CANDIDATES, PASSES, SCREENED, VERDICTS
from storage.tables import read_table, read_tables, write_table
from storage.vectors import IndexConfig
from tasks.corpus.tokenizing import tokenizer_digest
from tasks.resources import release
from tasks.rounds.building import policy_inputs
from tasks.rounds.figures import budget_figures, screened_figures, verdict_figures
from tasks.screening.entropy import EntropyInputs, screen_entropy
from tasks.screening.ordered_verification import (
    LearningConfig,
    LearningInputs,
    OrderedInputs,
    learn_ordering,
    verify_in_order,
)
from tasks.screening.ordering import Pass, walk
from tasks.screening.retrieval import RetrievalInputs, retrieve
from tasks.screening.roots import RootsInputs, cut_roots
from tasks.screening.verification import VerificationConfig, VerificationInputs, verify
from tests.published_world import sharp_world
from tests.world import World

RANKED = VerificationConfig(epsilon=0.1, ordering="rank", quota=1)


@pytest.fixture
def world(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return sharp_world(home, tmp_path, monkeypatch)


def roots_of(world: World) -> Ref:
    inputs = RootsInputs(
        documents=world.corpus.documents,
        tokenizer=tokenizer_digest(world.folder),
        rounds=world.config.rounds,
        tokenizer_folder=str(world.folder),
    )
    return cut_roots.run(world.home, inputs, world.config.roots)["roots"]


def test_an_empty_shard_gives_empty_tables(world: World) -> None:
    home, config, corpus, roots = world.home, world.config, world.corpus.digest, roots_of(world)
    policy = policy_inputs(world.policy, world.folder, config.numeric)
    found = screen_entropy.run(
        home, EntropyInputs(roots=roots, first_root=4, stop_root=4, policy=policy), config.entropy
    )
    positions = found["positions"]
    found |= retrieve.run(
        home,
        RetrievalInputs(
            positions=positions, roots=roots, corpus=corpus, embedder=EmbedderConfig(), index=IndexConfig()
        ),
        config.retrieval,
    )
    shard = VerificationInputs(
        positions=positions, candidates=found["candidates"], roots=roots, corpus=corpus, policy=policy
    )
    found |= verify.run(home, shard, config.verification)
    taught = LearningInputs(
        positions=(positions,),
        candidates=(found["candidates"],),
        verdicts=(found["verdicts"],),
        roots=roots,
        corpus=corpus,
        tokenizer=tokenizer_digest(world.folder),
        tokenizer_folder=str(world.folder),
    )
    model = learn_ordering.run(home, taught, LearningConfig())["ordering"]
    assert read_table(home.path, model)["weight"].is_finite().all()
    ordered = OrderedInputs(**dict(shard), model=model)
    found |= verify_in_order.run(home, ordered, VerificationConfig(ordering="expected-yield", floor=0.5))
    assert {name: ref.rows for name, ref in found.items()} == dict.fromkeys(
        ("screened", "positions", "candidates", "verdicts", "passes"), 0
    )
    verdicts, passes, screened = (read_tables(home.path, (), schema) for schema in (VERDICTS, PASSES, SCREENED))
    assert verdict_figures(verdicts, 0.4) == {"near_epsilon": 0.0}
    assert budget_figures(verdicts, passes) == {"passes_left_out": 0.0}
    assert screened_figures(screened) == {}
    release()


def test_a_position_that_found_nothing_usable_and_one_that_found_every_chunk(world: World) -> None:
    home, roots = world.home, roots_of(world)
    policy = policy_inputs(world.policy, world.folder, world.config.numeric)
    screened = screen_entropy.run(
        home, EntropyInputs(roots=roots, first_root=3, stop_root=5, policy=policy), world.config.entropy
    )
    positions = read_table(home.path, screened["positions"])
    own = read_table(home.path, roots, ["doc"])["doc"].to_list()
    first, second = positions.row(0, named=True), positions.row(len(positions) - 1, named=True)
    assert first["root"] != second["root"]
    allowed = [number for number, chunk in enumerate(world.chunks) if chunk["doc"] != own[second["root"]]]
    rows = [
        {"root": first["root"], "t": first["t"], "chunk": n, "rank": n, "score": 0.5, "excluded": "copy"}
        for n in range(5)
    ] + [
        {"root": second["root"], "t": second["t"], "chunk": chunk, "rank": rank, "score": 0.5, "excluded": None}
        for rank, chunk in enumerate(allowed)
    ]
    shard = VerificationInputs(
        positions=screened["positions"],
        candidates=write_table(home.path, "work/by-hand/candidates.parquet", CANDIDATES, rows),
        roots=roots,
        corpus=world.corpus.digest,
        policy=policy,
    )
    everything = read_table(home.path, verify.run(home, shard, RANKED.exhaustive)["verdicts"])
    assert everything["chunk"].to_list() == allowed
    assert set(everything["root"].to_list()) == {second["root"]}
    found = verify_in_order.run(home, OrderedInputs(**dict(shard), model=None), RANKED)
    release()
    verdicts, passes = read_table(home.path, found["verdicts"]), read_table(home.path, found["passes"])
    assert passes["chunk"].to_list() == allowed, "in rank order"
    made = passes["verified"].sum()
    assert made == len(verdicts)
    kept = everything["kept"].to_list()
    until = kept.index(True) + 1 if True in kept else len(kept)
    assert made == min(len(kept), -(-until // RANKED.wave) * RANKED.wave), "up to the wave with the first positive"


def test_ten_thousand_passes_of_one_root_are_walked_at_once() -> None:
    passes = [Pass(0, chunk, (1,), (chunk * 7919) % 10_000, 100) for chunk in range(10_000)]
    waves: list[int] = []

    def measure(asked: list[Pass]) -> set[tuple[int, int]]:
        waves.append(len(asked))
        return {one.key for one in asked if one.rank % 100 == 99}

    (done,) = walk(passes, VerificationConfig(ordering="rank", quota=50, wave=32), measure)  # type: ignore[arg-type]
    assert [one.rank for one in done.passes] == list(range(10_000))
    assert (done.made, done.reason) == (5024, "quota")
    assert set(waves) == {32}
