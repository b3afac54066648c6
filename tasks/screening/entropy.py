"""Entropy, threshold, positions and queries of a shard of roots (docs/method.md 2.1 to 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.scoring import Context
from storage.checkpoints import work_uri
from storage.home import Home
from storage.refs import Ref
from storage.schemas import POSITIONS, SCREENED
from storage.tables import RowReader, write_table
from tasks.checkpointed import step
from tasks.progress import progress
from tasks.resources import PolicyInputs, policy_for, scorer_for


class EntropyConfig(BaseModel):
    """Which tokens of a root count as uncertain, and the query made of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: float = Field(
        2.0, ge=0, le=10, description="A position counts above tau = mean + alpha * std of its root. [paper 2.2]"
    )
    min_context: int = Field(
        16, ge=0, description="Positions before this one are skipped; 0 is the literal rule. [ours 2.2]"
    )
    query_radius: int = Field(16, ge=0, description="Tokens on each side of the position in the query. [paper 2.3]")


@dataclass(frozen=True, slots=True)
class Selection:
    """Statistics of a root's entropies (nats) and the selected positions, ascending."""

    scored: int
    mean: float
    std: float
    threshold: float
    positions: tuple[int, ...]


def select_positions(entropies: NDArray[np.floating[Any]], first: int, config: EntropyConfig) -> Selection:
    """Positions whose entropy lies above mean + alpha * std (population std; docs/method.md 2.2).

    ``entropies`` [n] in nats is indexed by position; those before ``max(first, min_context)`` enter neither the
    statistics nor the selection. ``first`` is 1, or 0 when the tokenizer sets a BOS. Statistics are in float64.
    """
    start = max(first, config.min_context)
    used = np.asarray(entropies[start:], dtype=np.float64)
    if not len(used):
        return Selection(0, 0.0, 0.0, 0.0, ())
    mean, std = float(used.mean()), float(used.std())
    threshold = mean + config.alpha * std
    return Selection(len(used), mean, std, threshold, tuple(int(start + i) for i in np.flatnonzero(used > threshold)))


def query_window(ids: Sequence[int], t: int, radius: int) -> Sequence[int]:
    """The tokens x_{t-w} .. x_{t+w} inclusive, clipped at the borders (docs/method.md 2.3)."""
    return ids[max(0, t - radius) : t + radius + 1]


class EntropyInputs(BaseModel):
    """A shard of roots and the policy that reads them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    roots: Ref
    first_root: int
    stop_root: int
    policy: PolicyInputs


@step("entropy", code_version=4, scores=True)
def screen_entropy(home: Home, inputs: EntropyInputs, config: EntropyConfig) -> dict[str, Ref]:
    """Reads each root once and writes ``screened`` (its statistics) and ``positions`` (its uncertain tokens with
    queries).
    """
    policy = policy_for(inputs.policy)
    bos = policy.bos
    reader = RowReader(home.path, inputs.roots, ["input_ids"])
    rows = range(inputs.first_root, inputs.stop_root)
    roots = [reader[row]["input_ids"] for row in rows]
    reader.close()
    first = 0 if bos else 1
    contexts = [Context((*bos, *ids), [len(bos) + t for t in range(first, len(ids))]) for ids in roots]
    with progress("entropy of roots", total=sum(c.needed for c in contexts), unit="tokens") as advance:
        scores = scorer_for(inputs.policy).score(contexts, progress=advance)

    screened: list[dict[str, Any]] = []
    positions: list[dict[str, Any]] = []
    for row, ids, score in zip(rows, roots, scores, strict=True):
        entropies = np.concatenate([np.zeros(first, np.float32), score.entropy.numpy()])
        losses = np.concatenate([np.zeros(first, np.float32), score.nll.numpy()])
        chosen = select_positions(entropies, first, config)
        statistics = {"mean": chosen.mean, "std": chosen.std, "threshold": chosen.threshold}
        screened.append(
            {"root": row, "tokens": len(ids), "scored": chosen.scored, "selected": len(chosen.positions), **statistics}
        )
        for t in chosen.positions:
            positions.append(
                {
                    "root": row,
                    "t": t,
                    "token_id": ids[t],
                    "entropy": float(entropies[t]),
                    "nll": float(losses[t]),
                    "query": policy.tokenizer.decode(list(query_window(ids, t, config.query_radius))),
                    **statistics,
                }
            )
    key = screen_entropy.key(inputs, config)
    return {
        "screened": write_table(home.path, work_uri(key, "screened"), SCREENED, screened),
        "positions": write_table(home.path, work_uri(key, "positions"), POSITIONS, positions),
    }
