"""A round of the small world, made by the product's steps and published: what measurements on a version need.

published = publish_world(make_world(home, tmp_path, monkeypatch))
published.version, published.rows["verdicts"]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from models.embedders import EmbedderConfig
from models.policy import quiet_transformers
from models.policy_files import policy_digest
from storage.digests import digest_json
from storage.home import Home
from storage.manifests import Manifest, NumericEnvironment, entries_of, shard_name
from storage.policies import add_policy, policy_folder
from storage.refs import Ref
from storage.tables import read_table
from storage.vectors import IndexConfig
from storage.versions import publish_version
from tasks.corpus.tokenizing import tokenizer_digest
from tasks.resources import PolicyInputs, release
from tasks.rounds.building import policy_inputs
from tasks.samples.assembly import AssemblyInputs, assemble
from tasks.screening.entropy import EntropyInputs, screen_entropy
from tasks.screening.negatives import NegativesInputs, find_negatives
from tasks.screening.retrieval import RetrievalInputs, retrieve
from tasks.screening.roots import RootsInputs, cut_roots, probe_rows, round_rows
from tasks.screening.verification import VerificationInputs, verify
from tests.world import World, make_world


@dataclass(frozen=True)
class PublishedWorld:
    """A version with its tables: train shard first, then the probe set's, as in a round."""

    world: World
    version: str
    policy: PolicyInputs
    refs: dict[str, list[Ref]]

    def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table."""
        return [row for ref in self.refs[table] for row in read_table(self.world.home.path, ref).to_dicts()]


def publish_world(world: World, number: int = 1) -> PublishedWorld:
    """Builds and publishes round ``number`` of the world in one train shard and one of the probe set."""
    home, config = world.home, world.config
    policy = policy_inputs(world.policy, world.folder, config.numeric)
    tokenizer = tokenizer_digest(world.folder)
    made = RootsInputs(
        documents=world.corpus.documents, tokenizer=tokenizer, rounds=config.rounds, tokenizer_folder=str(world.folder)
    )
    roots = cut_roots.run(home, made, config.roots)["roots"]
    refs: dict[str, list[Ref]] = {"roots": [roots]}
    train = round_rows(config.roots, number)
    corpus = world.corpus.digest
    for rows in (train, probe_rows(config.roots)):
        shard = screen_entropy.run(
            home, EntropyInputs(roots=roots, first_root=rows.start, stop_root=rows.stop, policy=policy), config.entropy
        )
        search = RetrievalInputs(
            positions=shard["positions"], roots=roots, corpus=corpus, embedder=EmbedderConfig(), index=IndexConfig()
        )
        shard |= retrieve.run(home, search, config.retrieval)
        judged = VerificationInputs(
            positions=shard["positions"], candidates=shard["candidates"], roots=roots, corpus=corpus, policy=policy
        )
        shard |= verify.run(home, judged, config.verification)
        for name, ref in shard.items():
            refs.setdefault(name, []).append(ref)
    wanted = NegativesInputs(verdicts=refs["verdicts"][0], roots=roots, corpus=corpus, index=IndexConfig())
    refs["negatives"] = [find_negatives.run(home, wanted, config.negatives)["negatives"]]
    packed = AssemblyInputs(
        shards=((train.start, train.stop),), verdicts=(refs["verdicts"][0],), negatives=tuple(refs["negatives"]),
        roots=roots, corpus=corpus, tokenizer=tokenizer, separator=config.verification.separator,
        negatives_per_positive=1, policy=policy,
    )  # fmt: skip
    refs |= {name: [ref] for name, ref in assemble.run(home, packed, config.assembly).items()}
    release()
    return PublishedWorld(world, publish_tables(world, number, refs), policy, refs)


def publish_tables(world: World, number: int, refs: dict[str, list[Ref]]) -> str:
    """Publishes tables as a round of the world; returns the version."""
    files: dict[str, Any] = {
        shard_name(name, shard): ref for name, shards in refs.items() for shard, ref in enumerate(shards)
    }
    resolved = world.config.model_dump(mode="json")
    manifest = Manifest(
        round=number,
        recipe="policylong",
        config=resolved,
        config_digest=digest_json(resolved),
        corpus=world.corpus.digest,
        embedder=world.corpus.embedder_digest,
        policy=world.policy,
        parent_policy=None,
        parent_version=None,
        lag=0,
        files=entries_of(world.home, files),
        numeric=NumericEnvironment(device="cpu", dtype="float32", threads=1, versions={}),
        funnel={},
        tokens={},
        seeds={},
        code_versions={},
        figures={},
    )
    return publish_version(world.home, manifest, files)


def sharp_world(home: Home, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The small world with a policy that is surer of itself: gains are tenths, not thousandths.

    Its native context of 110 tokens ends inside the roots of a sample.
    """
    world = make_world(home, scratch, monkeypatch)
    policy = changed_policy(home, world, scratch / "sharp", sharpness=6.0)
    judged = world.config.verification.model_copy(update={"epsilon": 0.1})
    config = world.config.model_copy(update={"verification": judged})
    return replace(world, policy=policy, folder=policy_folder(home, policy), config=config)


def changed_policy(
    home: Home, world: World, folder: Path, *, noise: float = 0.0, sharpness: float = 1.0, seed: int = 1
) -> str:
    """Registers a copy of the world's policy, its logits times ``sharpness``, its weights moved by ``noise`` of their
    spread.
    """
    model: Any = AutoModelForCausalLM.from_pretrained(world.folder)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.config.max_position_embeddings = 110
        model.model.norm.weight.mul_(sharpness)
        for parameter in model.parameters():
            spread = float(parameter.std()) if parameter.dim() > 1 else 0.0
            parameter.add_(torch.randn(parameter.shape, generator=generator) * noise * spread)
    with quiet_transformers():
        model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((world.folder / name).read_bytes())
    digest = policy_digest(folder)
    add_policy(home, folder, digest, parent=None, trained_on=None, round=0)
    return digest
