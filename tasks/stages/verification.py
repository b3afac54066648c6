"""The verification stage: all shards at once, or, within a budget, the first ones exhaustively and then the others."""

from __future__ import annotations

from collections.abc import Sequence

from storage.refs import Ref
from tasks.rounds.round import Round
from tasks.screening.ordered_verification import (
    LearningConfig,
    LearningInputs,
    OrderedInputs,
    learn_ordering,
    verify_in_order,
)
from tasks.screening.ordering import learning_shards
from tasks.screening.verification import VerificationInputs, verify


def verification(this: Round) -> None:
    """Tables ``verdicts`` of all shards; within a budget ``passes`` of the shards that had one, and ``ordering``.

    The probe set is always verified exhaustively: what is compared between rounds must not depend on a budget.
    """
    config = this.config.verification
    everything = range(len(this.all_shards))
    if not config.ordered:
        _exhaustively(this, everything)
        return
    train = len(this.train_shards)
    learned = learning_shards(config.learning_share, train) if config.learns else 0
    first, rest = everything[:learned], everything[learned:train]
    _exhaustively(this, [*first, *everything[train:]])
    exhaustive = this.tables.pop("verdicts", [])
    ordered: Sequence[Ref] = []
    if rest:
        model = _learned(this, first, exhaustive[:learned]) if config.learns else None
        this.over_shards(
            verify_in_order, config, (OrderedInputs(**dict(_inputs(this, shard)), model=model) for shard in rest)
        )
        ordered = this.tables["verdicts"]
    this.tables["verdicts"] = [*exhaustive[:learned], *ordered, *exhaustive[learned:]]


def _exhaustively(this: Round, shards: Sequence[int]) -> None:
    if shards:
        this.over_shards(verify, this.config.verification.exhaustive, (_inputs(this, shard) for shard in shards))


def _inputs(this: Round, shard: int) -> VerificationInputs:
    return VerificationInputs(
        positions=this.tables["positions"][shard],
        candidates=this.tables["candidates"][shard],
        roots=this.roots,
        corpus=this.corpus.digest,
        policy=this.policy,
    )


def _learned(this: Round, shards: Sequence[int], verdicts: Sequence[Ref]) -> Ref:
    inputs = LearningInputs(
        positions=tuple(this.tables["positions"][shard] for shard in shards),
        candidates=tuple(this.tables["candidates"][shard] for shard in shards),
        verdicts=tuple(verdicts),
        roots=this.roots,
        corpus=this.corpus.digest,
        tokenizer=this.tokenizer,
        tokenizer_folder=this.policy.folder,
    )
    this.whole(learn_ordering, inputs, LearningConfig())
    return this.tables["ordering"][0]
