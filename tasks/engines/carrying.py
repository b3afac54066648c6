"""Shards for nodes that don't mount the home: shared storage carries there what a shard reads, and back what it makes.

The flow's process alone writes into the home. A node keeps what it was brought in a folder of its own
(``POLICYLONG_NODE_CACHE``, else the temporary folder), so corpus, roots and policy come once a node; the folder can be
deleted whenever nothing runs. What a shard made is noted in the shared storage too: a flow that was killed before it
had taken a shard back finds it there.
"""

from __future__ import annotations

import getpass
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from storage.checkpoints import record_step
from storage.corpora import MANIFEST, open_corpus
from storage.digests import digest_file, digest_text
from storage.home import Home
from storage.policies import policy_record
from storage.refs import Ref
from storage.shared import SharedStorage
from storage.tables import check_ref
from tasks.checkpointed import Step
from tasks.resources import PolicyInputs

CACHE = "POLICYLONG_NODE_CACHE"
"""Environment variable of a node: the folder for what it is brought."""


class Load(BaseModel):
    """What a shard reads: files by their place below the home, and the files of its policy, with their digests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    files: dict[str, str] = Field(description="Path below the home → SHA-256.")
    policy: dict[str, str] = Field(description="Name of a file of the policy → SHA-256.")


class Carrier:
    """The flow's side: puts what shards read into the shared storage and takes back what they make."""

    def __init__(self, url: str) -> None:
        self._storage = SharedStorage(url)
        self._listed: dict[str, dict[str, str]] = {}
        self._there: set[str] = set()

    def load(self, home: Home, inputs: BaseModel) -> Load:
        """Puts everything that a shard reads into the storage, each file once."""
        files = {ref.uri: ref.sha256 for ref in refs_in(inputs)}
        for ref in refs_in(inputs):
            self._put(home / ref.uri, ref.sha256)
        corpus, policy = getattr(inputs, "corpus", None), getattr(inputs, "policy", None)
        if isinstance(corpus, str):
            files |= self._corpus(home, corpus)
        listing = self._policy(home, policy) if isinstance(policy, PolicyInputs) else {}
        return Load(url=self._storage.url, files=files, policy=listing)

    def take(
        self, home: Home, step: Step[Any, Any], inputs: BaseModel, config: BaseModel, answer: Mapping[str, Any]
    ) -> None:
        """Brings the files of a finished shard into the home, then records the step there."""
        refs = {name: Ref.model_validate(ref) for name, ref in answer["refs"].items()}
        for ref in refs.values():
            self._storage.fetch(ref.sha256, home.within(ref.uri))
        record_step(home, step.key(inputs, config), refs, float(answer["seconds"]))

    def _put(self, path: Path, sha256: str) -> None:
        if sha256 not in self._there:
            self._storage.put(path, sha256)
            self._there.add(sha256)

    def _corpus(self, home: Home, digest: str) -> dict[str, str]:
        if digest not in self._listed:
            corpus = open_corpus(home, digest)
            manifest = f"{corpus.folder}/{MANIFEST}"
            for ref in (corpus.documents, corpus.chunks):
                self._put(check_ref(home.path, ref), ref.sha256)
            found = {ref.uri: ref.sha256 for ref in (corpus.documents, corpus.chunks)}
            found[manifest] = digest_file(home / manifest)
            self._put(home / manifest, found[manifest])
            self._listed[digest] = found
        return self._listed[digest]

    def _policy(self, home: Home, policy: PolicyInputs) -> dict[str, str]:
        if policy.digest not in self._listed:
            files = policy_record(home, policy.digest).files
            for name, sha256 in files.items():
                self._put(Path(policy.folder) / name, sha256)
            self._listed[policy.digest] = dict(files)
        return self._listed[policy.digest]


def computed(load: Load, step: Step[Any, Any], inputs: BaseModel, config: BaseModel) -> tuple[dict[str, Ref], float]:
    """The node's side: brings what the shard reads, computes it, puts away what it made; refs and seconds.

    A shard that another node had finished is not computed again.
    """
    storage = _storage(load.url)
    key = step.key(inputs, config)
    known = storage.recorded(key.digest)
    if known is not None:
        return known
    home = node_home(load.url)
    for uri, sha256 in load.files.items():
        storage.fetch_once(home, uri, sha256)
    if load.policy:
        policy: PolicyInputs = getattr(inputs, "policy")  # noqa: B009  inputs are of any step
        folder = f"policies/{policy.digest[:16]}"
        for name, sha256 in load.policy.items():
            storage.fetch_once(home, f"{folder}/{name}", sha256)
        inputs = inputs.model_copy(update={"policy": policy.model_copy(update={"folder": str(home / folder)})})
    began = time.perf_counter()
    refs = dict(step.produce(home, inputs, config))
    seconds = round(time.perf_counter() - began, 3)
    for ref in refs.values():
        storage.put(home / ref.uri, ref.sha256)
    storage.record(key.digest, refs, seconds)
    for ref in refs.values():
        (home / ref.uri).unlink()
    return refs, seconds


def node_home(url: str) -> Home:
    """The folder of this machine for what is brought from a URL."""
    given = os.environ.get(CACHE)
    folder = Path(given) if given else Path(tempfile.gettempdir()) / f"policylong-{getpass.getuser()}"
    return Home.open(folder / digest_text(url)[:16])


def refs_in(value: Any) -> Iterator[Ref]:
    """Every ref in a step's inputs."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from refs_in(getattr(value, name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from refs_in(item)


_open: dict[str, SharedStorage] = {}


def _storage(url: str) -> SharedStorage:
    if url not in _open:
        _open[url] = SharedStorage(url)
    return _open[url]
