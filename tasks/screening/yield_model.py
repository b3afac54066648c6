"""How likely a pair is to be kept, from what is known before any pass: a small logistic model (docs/method.md 2.5,
ours).

    p(kept) = 1 / (1 + exp(-(w_0 + sum_i w_i (x_i - mean_i) / scale_i)))

Fitted by Newton's method with a fixed number of steps under a penalty on the weights, without a random number and
without a matrix library that sums in another order on other threads: the same verdicts give the same model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.screening.evidence import FEATURES

Matrix = NDArray[np.float64]
INTERCEPT = "intercept"
PENALTY = 30.0
"""Strength of the Gaussian prior on the weights of standardised features. Ours: of 1, 3, 10, 30 and 100 the one whose
order held best on shards that it was not fitted on, where a few dozen pairs were kept; with thousands it is nothing."""
_UNRELATED = ("rank", "margin", "entropy", "length")
PRIOR = np.array([0.0 if name in _UNRELATED else 0.3 for name in FEATURES])
"""Where the prior stands: what the position needs is shown in the chunk, so it helps; nothing of the other features.
Ours: 0.2 to 0.5 gave much the same orders, and 0 a poor one where the first shard had a single kept pair."""
STEPS = 25
_DIGITS = 9
_LIMIT = 35.0


@dataclass(frozen=True, slots=True)
class YieldModel:
    """Weights of a fitted model; arrays are float64 [features]."""

    mean: Matrix
    scale: Matrix
    weights: Matrix
    intercept: float

    def probabilities(self, features: Matrix) -> Matrix:
        """Probability that each pair is kept, float64 [pairs], of features float64 [pairs, features]."""
        logits = self.intercept + (((features - self.mean) / self.scale) * self.weights).sum(axis=1)
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -_LIMIT, _LIMIT))), np.float64)

    def rows(self) -> list[dict[str, Any]]:
        """Rows of table ``ordering``."""
        columns = (FEATURES, self.mean.tolist(), self.scale.tolist(), self.weights.tolist())
        first = {"feature": INTERCEPT, "mean": 0.0, "scale": 1.0, "weight": self.intercept}
        names = ("feature", "mean", "scale", "weight")
        return [first, *(dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))]

    @classmethod
    def of_rows(cls, table: pl.DataFrame) -> YieldModel:
        """The model of a table ``ordering``; raises ``ValueError`` for features other than those known here."""
        expected = [INTERCEPT, *FEATURES]
        if table["feature"].to_list() != expected:
            raise ValueError(f"features {table['feature'].to_list()}, expected {expected}")
        mean, scale, weights = (table[name].to_numpy()[1:].astype(np.float64) for name in ("mean", "scale", "weight"))
        return cls(mean, scale, weights, float(table["weight"][0]))


def fit_yield(features: Matrix, kept: NDArray[np.bool_]) -> YieldModel:
    """Fits features float64 [pairs, features] to verdicts bool [pairs].

    Where no pair was kept, or every one, the weights are the prior's.
    """
    pairs, positive = len(kept), int(kept.sum())
    intercept = float(np.log((positive + 0.5) / (pairs - positive + 0.5)))
    width = len(FEATURES)
    if not pairs:
        return YieldModel(np.zeros(width), np.ones(width), PRIOR, intercept)
    mean, spread = _rounded(features.mean(axis=0)), _rounded(features.std(axis=0))
    scale = np.where(spread > 1e-9, spread, 1.0)
    if positive in (0, pairs):
        return YieldModel(mean, scale, PRIOR, float(_rounded(np.array([intercept]))[0]))
    design = np.concatenate([np.ones((pairs, 1)), (features - mean) / scale], axis=1)
    target = kept.astype(np.float64)
    penalty = np.full(width + 1, PENALTY)
    penalty[0] = 1e-6  # the intercept is free; the little it has keeps the system regular
    prior = np.array([intercept, *PRIOR])
    weights = prior

    def loss_at(point: Matrix) -> float:
        return _loss(design, target, point, point - prior, penalty)

    loss = loss_at(weights)
    for _ in range(STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(_dot(design, weights), -_LIMIT, _LIMIT)))
        gradient = np.einsum("ij,i->j", design, target - p) - penalty * (weights - prior)
        hessian = np.einsum("ij,ik->jk", design * (p * (1 - p))[:, None], design) + np.diag(penalty)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while size > 1e-4 and loss_at(weights + size * step) > loss:
            size /= 2  # a whole step may leap over the minimum where verdicts are nearly separable
        if size <= 1e-4:
            break
        weights = weights + size * step
        loss = loss_at(weights)
    weights = _rounded(weights)
    return YieldModel(mean, scale, weights[1:], float(weights[0]))


def _loss(design: Matrix, target: Matrix, weights: Matrix, away: Matrix, penalty: Matrix) -> float:
    logits = _dot(design, weights)
    return float((np.logaddexp(0.0, logits) - target * logits).sum() + 0.5 * (penalty * away * away).sum())


def _dot(design: Matrix, weights: Matrix) -> Matrix:
    return np.asarray((design * weights).sum(axis=1), np.float64)


def _rounded(values: Matrix) -> Matrix:
    """To nine significant digits: the last bits of a sum are no part of a model's identity."""
    return np.array([float(f"{value:.{_DIGITS}g}") for value in values.tolist()])
