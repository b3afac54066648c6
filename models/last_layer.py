"""A model's last layer on the needed tokens alone: what it makes of the other tokens is read by nobody.

Keys and values of the last layer are needed of every token, its queries and all that follows the attention only where
a prediction is scored. Which modules those are differs between families, so it is tried out: a module's answer for the
tokens that are not needed is replaced by NaN, and it may be narrowed when no needed token's output notices. The
attention itself (``models.needed_queries``) is tried in the same way. Ours; it saves about two thirds of one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from models.needed_queries import Needed, NeededQueries

_TOKENS = 16


class LastLayer:
    """The modules of a model's last layer that run on the needed tokens only while ``only`` is open."""

    def __init__(self, model: Any, run: Callable[[Tensor], Tensor]) -> None:
        """``run`` is ids [b, n] to hidden [b, n, h], by the model; it must be in eval mode."""
        self._needed = Needed()
        self.narrowed: tuple[str, ...] = ()
        """Names of these modules in the layer."""
        self.queries = False
        """Whether its attention is narrowed as well."""
        layer = last_layer(model)
        if layer is not None:
            probe = _Probe(model, layer, run)
            self.narrowed = tuple(self._narrow(layer, probe, ""))
            self.queries = self._narrow_queries(layer, probe)

    @contextmanager
    def only(self, rows: Tensor, places: Tensor) -> Iterator[None]:
        """Forward passes of this thread are right at the tokens (rows[i], places[i]) alone; rows ascend."""
        self._needed.at, self._needed.in_last_layer = (rows, places), False
        try:
            with NeededQueries(self._needed) if self.queries else nullcontext():
                yield
        finally:
            self._needed.at = None

    def _narrow(self, module: nn.Module, probe: _Probe, prefix: str) -> Iterator[str]:
        """Narrows the largest modules below this one that may be."""
        for name, child in module.named_children():
            if not any(weight.dim() > 1 for weight in child.parameters()):
                continue
            handles = (
                child.register_forward_pre_hook(self._take),
                child.register_forward_hook(self._put),
            )
            if probe.is_plain(child) and self._goes_unnoticed(probe):
                yield prefix + name
                continue
            for handle in handles:
                handle.remove()
            yield from self._narrow(child, probe, f"{prefix}{name}.")

    def _narrow_queries(self, layer: nn.Module, probe: _Probe) -> bool:
        handle = layer.register_forward_pre_hook(self._begin)
        self.queries, self._needed.narrowed_queries = True, False
        if self._goes_unnoticed(probe) and self._needed.narrowed_queries:
            return True
        handle.remove()
        return False

    def _begin(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        self._needed.in_last_layer = True

    def _goes_unnoticed(self, probe: _Probe) -> bool:
        self._needed.fill = float("nan")
        try:
            with self.only(probe.rows, probe.places):
                return probe.is_unchanged()
        finally:
            self._needed.fill = 0.0

    def _take(self, module: nn.Module, given: tuple[Any, ...]) -> tuple[Tensor] | None:
        if self._needed.at is None:
            return None
        self._needed.batch = given[0].shape[:2]
        return (given[0][self._needed.at][None],)

    def _put(self, module: nn.Module, given: tuple[Any, ...], made: Tensor) -> Tensor:
        if self._needed.at is None:
            return made
        rows, places = self._needed.at
        whole = made.new_full((*self._needed.batch, made.shape[-1]), self._needed.fill)
        whole[rows, places] = made[0]
        return whole


class _Probe:
    """A short batch of which some tokens are needed, what the model makes of them, and how its modules are called."""

    def __init__(self, model: Any, layer: nn.Module, run: Callable[[Tensor], Tensor]) -> None:
        weight = next(model.parameters())
        size = model.config.get_text_config().vocab_size
        ids = torch.arange(1, 2 * _TOKENS + 1, device=weight.device) * 7919 % size
        self._ids, self._run = ids.view(2, _TOKENS), run
        self._tolerance = 1e-4 if weight.dtype == torch.float32 else 5e-2
        self.rows = torch.tensor([0, 0, 0, 1], device=weight.device)
        self.places = torch.tensor([2, 9, 14, 11], device=weight.device)
        self._plain: set[nn.Module] = set()
        handles = [module.register_forward_hook(self._see, with_kwargs=True) for module in layer.modules()]
        self._expected = self._hidden()
        for handle in handles:
            handle.remove()

    def is_plain(self, module: nn.Module) -> bool:
        """Whether the module turns one tensor [b, n, ·] into another and is given nothing else."""
        return module in self._plain

    def is_unchanged(self) -> bool:
        """Whether the model makes the same of the needed tokens as when nothing was narrowed."""
        return torch.allclose(self._hidden(), self._expected, rtol=self._tolerance, atol=self._tolerance)

    def _hidden(self) -> Tensor:
        with torch.no_grad():
            return self._run(self._ids)[self.rows, self.places].float()

    def _see(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], made: object) -> None:
        if len(given) == 1 and not named and all(_is_of(x, self._ids.shape) for x in (*given, made)):
            self._plain.add(module)


def _is_of(value: object, batch: torch.Size) -> bool:
    return isinstance(value, Tensor) and value.dim() == 3 and value.shape[:2] == batch


def last_layer(model: Any) -> nn.Module | None:
    """The last of the layers that the model's configuration counts; None where no list of modules has that many, or
    nothing counts them.
    """
    config = getattr(model, "config", None)
    if config is None:
        return None
    count = getattr(config.get_text_config(), "num_hidden_layers", None)
    lists = (module for module in model.base_model.modules() if isinstance(module, nn.ModuleList))
    return next((layers[-1] for layers in lists if len(layers) == count), None)
