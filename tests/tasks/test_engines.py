"""Engines: what may run elsewhere, which nodes are fit for it, and shards carried to nodes without the home."""

from __future__ import annotations

import os
import pickle
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.campaign import campaign_identity
from models.embedders import EmbedderConfig
from storage.checkpoints import finished
from storage.errors import ConfigError, IntegrityError, ServiceError
from storage.files import sweep, temporary_name
from storage.home import Home
from storage.shared import SharedStorage
from storage.vectors import IndexConfig
from tasks.corpus.tokenizing import tokenizer_digest
from tasks.engines import carrying, engine, nodes
from tasks.engines.carrying import Carrier, computed, refs_in
from tasks.engines.engine import EngineConfig, check_engine
from tasks.recipes import all_recipes
from tasks.resources import release
from tasks.rounds.building import NumericConfig, policy_inputs
from tasks.screening.entropy import EntropyInputs, screen_entropy
from tasks.screening.retrieval import RetrievalInputs, retrieve
from tasks.screening.roots import RootsInputs, cut_roots
from tasks.screening.verification import VerificationInputs, verify
from tests.campaigns import small_preset
from tests.world import World, make_world


@dataclass(frozen=True)
class Shards:
    """A shard of each scoring step in a world's home, not computed yet but for what they read."""

    world: World
    entropy: EntropyInputs
    verification: VerificationInputs


@pytest.fixture
def shards(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shards:
    monkeypatch.setenv(carrying.CACHE, str(tmp_path / "node"))
    world = make_world(home, tmp_path / "scratch", monkeypatch)
    config, folder = world.config, world.folder
    policy = policy_inputs(world.policy, folder, config.numeric)
    roots = cut_roots.run(
        home,
        RootsInputs(
            documents=world.corpus.documents,
            tokenizer=tokenizer_digest(folder),
            rounds=config.rounds,
            tokenizer_folder=str(folder),
        ),
        config.roots,
    )["roots"]
    entropy = EntropyInputs(roots=roots, first_root=0, stop_root=2, policy=policy)
    positions = screen_entropy.produce(home, entropy, config.entropy)["positions"]
    retrieval = RetrievalInputs(
        positions=positions,
        roots=roots,
        corpus=world.corpus.digest,
        embedder=EmbedderConfig(),
        index=IndexConfig(),
        exact=True,
    )
    candidates = retrieve.run(home, retrieval, config.retrieval)["candidates"]
    release()
    verification = VerificationInputs(
        positions=positions, candidates=candidates, roots=roots, corpus=world.corpus.digest, policy=policy
    )
    return Shards(world, entropy, verification)


def test_a_shard_carried_to_a_node_without_the_home_makes_the_same_tables_and_is_not_computed_twice(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, config = shards.world.home, shards.world.config
    carrier = Carrier((tmp_path / "storage").as_uri())
    for step, inputs, options in (
        (screen_entropy, shards.entropy, config.entropy),
        (verify, shards.verification, config.verification),
    ):
        load = carrier.load(home, inputs)
        moved = home.path.rename(home.path.with_name("unmounted"))
        refs, seconds = computed(load, step, inputs, options)
        moved.rename(home.path)
        answer = {"refs": {name: ref.model_dump() for name, ref in refs.items()}, "seconds": seconds}
        carrier.take(home, step, inputs, options, answer)
        assert finished(home, step.key(inputs, options)) == refs
        assert step.produce(home, inputs, options) == refs, "what is computed in the home has the same digests"
        monkeypatch.setattr(step, "produce", lambda *arguments: pytest.fail("computed twice"))
        assert computed(load, step, inputs, options)[0] == refs
    on_node = [path for path in (tmp_path / "node").rglob("*.parquet") if "corpora" not in path.parts]
    assert {path.name for path in on_node} == {Path(ref.uri).name for ref in refs_in(shards.verification)}


def test_what_was_changed_in_the_shared_storage_is_refused_and_put_there_again(shards: Shards, tmp_path: Path) -> None:
    home, config = shards.world.home, shards.world.config
    url = (tmp_path / "storage").as_uri()
    load = Carrier(url).load(home, shards.entropy)
    stored = tmp_path / "storage/objects" / shards.entropy.roots.sha256[:2] / shards.entropy.roots.sha256
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match="was changed"):
        computed(load, screen_entropy, shards.entropy, config.entropy)
    load = Carrier(url).load(home, shards.entropy)
    refs, _ = computed(load, screen_entropy, shards.entropy, config.entropy)
    assert refs == screen_entropy.produce(home, shards.entropy, config.entropy)
    made = tmp_path / "storage/objects" / refs["positions"].sha256[:2] / refs["positions"].sha256
    made.unlink()
    assert computed(load, screen_entropy, shards.entropy, config.entropy)[0] == refs
    assert made.is_file()


def test_a_storage_that_can_not_be_used_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be used"):
        SharedStorage("nosuchprotocol://bucket")
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "table").write_text("a table")
    with pytest.raises(ServiceError, match="failed"):
        SharedStorage((tmp_path / "file").as_uri()).put(tmp_path / "table", "0" * 64)


def test_steps_that_ask_a_policy_may_run_elsewhere_and_retrieval_may_not() -> None:
    steps = {step.name: step for recipe in all_recipes().values() for step in recipe.steps}
    elsewhere = {name for name, step in steps.items() if step.scores}
    assert elsewhere == {"entropy", "verification", "negative-verification"} | ({"ordered-verification"} & set(steps))
    for step in steps.values():
        assert pickle.loads(pickle.dumps(step)) is step, "a step travels by name"


def test_an_engine_is_no_part_of_a_campaign_and_its_options_are_checked(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = small_preset(make_world(home, tmp_path / "scratch", monkeypatch), "trial")
    ray = preset.model_copy(update={"engine": EngineConfig(kind="ray", address="local", gpus=0.5)})
    assert campaign_identity(ray) == campaign_identity(preset)
    with pytest.raises(ValidationError, match="address is an option of kind ray"):
        EngineConfig(address="10.0.0.1:6379")
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    check_engine(preset.engine)
    with pytest.raises(ConfigError, match=r"needs the package ray, .*policylong\[ray\]"):
        check_engine(ray.engine)


def test_a_gpu_named_in_so_many_words_need_not_be_in_the_machine_that_sends_shards(tmp_path: Path) -> None:
    config = NumericConfig(device="cuda")
    assert policy_inputs("d", tmp_path, config, elsewhere=True).device == "cuda"
    assert policy_inputs("d", tmp_path, NumericConfig(device="cpu"), elsewhere=True).device == "cpu"


@pytest.mark.parametrize(
    ("assigned", "visible", "number"), [("3", None, 3), ("3", "2,3", 1), ("0", "", 0), ("GPU-b", "GPU-a,GPU-b", 1)]
)
def test_the_gpu_of_a_shard_is_its_place_among_the_visible_ones(
    assigned: str, visible: str | None, number: int
) -> None:
    assert nodes.gpu_number(assigned, visible) == number


def test_a_node_of_another_program_home_or_network_is_not_fit(home: Home, tmp_path: Path) -> None:
    wanted = nodes.wanted_here(home, None, "cpu")
    assert nodes.unfit(wanted) is None

    def problem(**changed: object) -> str:
        found = nodes.unfit(wanted.model_copy(update=changed))
        assert found is not None
        assert found.hint
        return found.message

    assert "has policylong" in problem(versions={**wanted.versions, "policylong": "0.0.1"})
    assert "has torch" in problem(versions={**wanted.versions, "torch": "1.0"})
    assert "runs other code" in problem(code="0" * 64)
    assert "does not see the home" in problem(home=str(tmp_path / "elsewhere"))
    Home.open(tmp_path / "other")
    assert "has another folder" in problem(home=str(tmp_path / "other"))
    assert "computes on" in problem(processor="another processor")
    assert "can't reach Prefect at 127.0.0.1:1 " in problem(api=("127.0.0.1", 1))
    assert not (tmp_path / "elsewhere").exists(), "looking for a home does not make one"


@pytest.mark.parametrize("library", ["triton", "flash-attn"])
def test_what_scores_on_gpus_beside_torch_has_to_be_equal_where_shards_run_on_gpus(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(version: str) -> None:
        nodes.versions_here.cache_clear()
        monkeypatch.setattr(nodes, "_version", lambda name: version if name == library else "1.0")

    def told(flow: str, node: str, device: str) -> str | None:
        """What is said of a node with one version of the library where the flow's process has another."""
        install(flow)
        wanted = nodes.wanted_here(None, None, device)
        install(node)
        found = nodes._other_program(wanted)
        return found and found.message

    try:
        assert told("3.7", "3.6", "cuda") == f"has {library} 3.6, the flow's process has 3.7."
        assert told("none", "3.6", "cuda") == f"has {library} 3.6, the flow's process has none."
        assert told("3.7", "none", "cuda") == f"has {library} none, the flow's process has 3.7."
        assert told("3.7", "3.7", "cuda") is told("none", "none", "cuda") is None
        assert told("3.7", "none", "cpu") is None, "nothing of it scores on a CPU"
    finally:
        nodes.versions_here.cache_clear()


def test_half_written_files_of_another_machine_stay_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("storage.files._MACHINE", "@other-machine")
        elsewhere.setattr(os, "getpid", lambda: 999_999_999)
        foreign = temporary_name(tmp_path / "table.parquet")
    with monkeypatch.context() as before:
        before.setattr(os, "getpid", lambda: 999_999_999)
        own = temporary_name(tmp_path / "table.parquet")
    for path in (foreign, own):
        path.write_bytes(b"half")
    assert sweep(tmp_path) == 1
    assert foreign.exists()
    os.utime(foreign, (0, time.time() - 90_000))
    assert sweep(tmp_path) == 1
