"""Muon for the matrices inside the blocks and AdamW for everything else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class MuonAdamW(torch.optim.Optimizer):
    """Two torch optimizers behind one ``step``; their parameter groups are shared, so one schedule drives both.

    State is saved as ``{"muon": …, "adamw": …}``: tensors and numbers only.
    """

    def __init__(self, muon: torch.optim.Optimizer, adamw: torch.optim.Optimizer) -> None:
        self._muon = muon
        self._adamw = adamw
        super().__init__([*muon.param_groups, *adamw.param_groups], {})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Both optimizers' step."""
        loss = None if closure is None else closure()
        self._muon.step()
        self._adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state of both."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
        self._muon.load_state_dict(state_dict["muon"])
        self._adamw.load_state_dict(state_dict["adamw"])
        # Loading gives the inner optimizers new group objects; the schedule must turn those.
        self.param_groups = [*self._muon.param_groups, *self._adamw.param_groups]


def build_optimizer(
    model: nn.Module, *, muon: bool, muon_learning_rate: float, adamw_learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Muon (if asked for) on matrices inside the blocks; AdamW on embeddings, norms and biases.

    Without Muon the matrices are AdamW's too. Weight decay is decoupled and touches the blocks' matrices only.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices = [p for name, p in named if p.ndim == 2 and ".layers." in name]
    others = [p for name, p in named if not (p.ndim == 2 and ".layers." in name)]
    plain = {"params": others, "weight_decay": 0.0}
    if not muon:
        groups = [plain, {"params": matrices, "weight_decay": weight_decay}]
        return torch.optim.AdamW(groups, lr=adamw_learning_rate, betas=(0.9, 0.95))
    return MuonAdamW(
        torch.optim.Muon(matrices, lr=muon_learning_rate, weight_decay=weight_decay),
        torch.optim.AdamW([plain], lr=adamw_learning_rate, betas=(0.9, 0.95)),
    )
