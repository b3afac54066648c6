"""What the benchmarks screen: real roots and candidates, made by the product's own steps, and the policy that reads
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from models.embedders import EmbedderConfig
from models.policy import Policy, load_policy
from models.scoring import Context, Scorer
from models.workers import Workers
from storage.corpora import Corpus
from storage.home import Home
from storage.refs import Ref
from storage.tables import read_table
from storage.vectors import IndexConfig
from tasks.benchmarks.literal import FullLogits
from tasks.corpus.tokenizing import tokenizer_digest
from tasks.resources import PolicyInputs, bos_ids
from tasks.rounds.building import BuildConfig
from tasks.screening.entropy import EntropyInputs, screen_entropy
from tasks.screening.passages import Passages
from tasks.screening.retrieval import RetrievalConfig, RetrievalInputs, retrieve
from tasks.screening.roots import RootsInputs, cut_roots, round_rows
from tasks.screening.verification import Pair, pairs_of, prefixed, separator_ids


@dataclass(frozen=True, slots=True)
class Scene:
    """A corpus, a policy and the settings of a round in one home."""

    home: Home
    corpus: Corpus
    policy: PolicyInputs
    build: BuildConfig
    embedder: EmbedderConfig
    index: IndexConfig

    def roots(self) -> Ref:
        """The roots table of one round."""
        folder = Path(self.policy.folder)
        inputs = RootsInputs(
            documents=self.corpus.documents, tokenizer=tokenizer_digest(folder), rounds=1, tokenizer_folder=str(folder)
        )
        return cut_roots.run(self.home, inputs, self.build.roots)["roots"]

    def rows(self, count: int) -> range:
        """The rows of the first ``count`` roots of the round."""
        return round_rows(self.build.roots, 1)[:count]

    def positions(self, roots: Ref, rows: range) -> Ref:
        """The uncertain positions of roots."""
        inputs = EntropyInputs(roots=roots, first_root=rows.start, stop_root=rows.stop, policy=self.policy)
        return screen_entropy.run(self.home, inputs, self.build.entropy)["positions"]

    def candidates(self, roots: Ref, positions: Ref, config: RetrievalConfig | None = None) -> Ref:
        """The candidates of positions."""
        inputs = RetrievalInputs(
            positions=positions,
            roots=roots,
            corpus=self.corpus.digest,
            embedder=self.embedder,
            index=self.index,
            exact=self.index.exact,
        )
        return retrieve.run(self.home, inputs, config or self.build.retrieval)["candidates"]

    def loaded(self) -> Reader:
        """The policy, ready to score both ways."""
        wanted = self.policy
        policy = load_policy(
            Path(wanted.folder), device=wanted.device, dtype=wanted.dtype, remote_code=wanted.remote_code
        )
        budget = wanted.tokens_per_batch
        beside = Workers(policy.device, torch.get_num_threads())
        return Reader(
            policy,
            Scorer(policy.model, tokens_per_batch=budget, packing=wanted.packing, kernel=wanted.kernel),
            FullLogits(policy.model, budget),
            FullLogits(policy.model, budget, beside),
        )


@dataclass(frozen=True, slots=True)
class Reader:
    """One policy under the scoring engine and as transformers has it, with the same budget of tokens."""

    policy: Policy
    scorer: Scorer
    full: FullLogits
    beside: FullLogits
    """The same, as many batches at once as ours."""

    @property
    def bos(self) -> tuple[int, ...]:
        """What stands before every context."""
        return bos_ids(self.policy.tokenizer)


@dataclass(frozen=True, slots=True)
class Judged:
    """What one screening has to score: every root alone, and every unique pair of root and chunk.

    ``roots`` maps a root's row to its context; ``pairs`` and ``contexts`` go together.
    """

    roots: dict[int, Context]
    pairs: tuple[Pair, ...]
    contexts: tuple[Context, ...]

    @property
    def verdicts(self) -> int:
        """Pairs of position and candidate."""
        return sum(len(pair.positions) for pair in self.pairs)

    @property
    def tokens(self) -> int:
        """Tokens that the passes of all unique pairs read."""
        return sum(context.needed for context in self.contexts)

    def drawn(self, numbers: Sequence[int]) -> Judged:
        """Only these passes, and no roots alone."""
        return Judged({}, tuple(self.pairs[n] for n in numbers), tuple(self.contexts[n] for n in numbers))


def judged(scene: Scene, reader: Reader, roots: Ref, candidates: Ref) -> Judged:
    """The contexts that verification of these candidates reads, as the product's step lays them out."""
    tokenizer, bos = reader.policy.tokenizer, reader.bos
    passages = Passages(
        scene.home, roots=roots, chunks=scene.corpus.chunks, documents=scene.corpus.documents, tokenizer=tokenizer
    )
    separator = separator_ids(tokenizer, scene.build.verification.separator)
    pairs = pairs_of(read_table(scene.home.path, candidates))
    alone: dict[int, Context] = {}
    contexts = []
    first = 0 if bos else 1
    for pair in pairs:
        root = passages.root(pair.root).ids
        ids = prefixed(bos, passages.chunk_ids(pair.chunk), separator, root)
        offset = len(ids) - len(root)
        contexts.append(Context(ids, [offset + t for t in pair.positions]))
        alone.setdefault(pair.root, Context((*bos, *root), [len(bos) + t for t in range(first, len(root))]))
    passages.close()
    return Judged(alone, tuple(pairs), tuple(contexts))
