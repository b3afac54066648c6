"""Linear layers in 32 bits by oneDNN on a CPU, where torch's own way is the BLAS it was built with.

torch leaves 16 bits to oneDNN by itself, and 32 bits too when its compiler freezes a model; the same call is made here
while a batch is scored, whatever the family, and the model stays as it is. Numbers differ from the BLAS's in their last
bits. How much it saves is a matter of the processor (docs/performance.md); ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

LAID_OUT_BYTES = 2**30
"""A model whose linear layers have at most so many bytes of weights has them a second time, in the order that oneDNN
reads fastest: some 6 % of a small model's pass. Ours.
"""


class LaidOut(NamedTuple):
    """A weight in oneDNN's own order, the parameter that it was made from, and its state then."""

    weight: Tensor
    parameter: Tensor
    state: tuple[int, int]

    def is_of(self, parameter: Tensor) -> bool:
        """Whether it is of this parameter as it is now; changes made behind torch's back (``.data``) go unnoticed."""
        return self.parameter is parameter and self.state == _state(parameter)


class OneDnnLinear(TorchFunctionMode):
    """While it is on, linear layers of this thread are oneDNN's; those that it does not take are left as they are."""

    def __init__(self, laid_out: Mapping[int, LaidOut] | None = None) -> None:
        """``laid_out``: by the id of the parameter; one that was changed since is read as it is."""
        super().__init__()
        self._laid_out = laid_out or {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls torch's function, a linear layer by oneDNN."""
        if func is linear:
            return self._linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if torch.is_grad_enabled() or not input.numel() or weight.dim() != 2:
            return linear(input, weight, bias)
        if not (_is_plain(input) and _is_plain(weight)):
            return linear(input, weight, bias)
        found = self._laid_out.get(id(weight))
        return by_onednn(input, found.weight if found is not None and found.is_of(weight) else weight, bias)


class LinearLayers:
    """How a model's linear layers are computed: by oneDNN where torch has it and it gives the same numbers."""

    def __init__(self, model: nn.Module, run: Callable[[], Tensor], *, tokens: int) -> None:
        """``run`` is a short pass of the model; ``tokens`` are those of a usual batch."""
        self._laid_out: dict[int, LaidOut] = {}
        self.by_onednn = False
        weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear) and _is_plain(m.weight)]
        if not weights or not has_onednn():
            return
        if sum(weight.nbytes for weight in weights) <= LAID_OUT_BYTES:
            self._laid_out = {id(weight): lay_out(weight, tokens) for weight in weights if not weight.is_inference()}
        with torch.inference_mode():
            expected = run().float()
            with OneDnnLinear(self._laid_out):
                self.by_onednn = torch.allclose(expected, run().float(), rtol=1e-4, atol=1e-4, equal_nan=True)

    def taken_over(self) -> AbstractContextManager[object]:
        """To be open around a pass, one for each."""
        return OneDnnLinear(self._laid_out) if self.by_onednn else nullcontext()


def has_onednn() -> bool:
    """Whether this torch has oneDNN and the call of its compiler that is made here."""
    available: Callable[[], bool] = torch.backends.mkldnn.is_available
    return available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def by_onednn(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``torch.nn.functional.linear`` of fp32 tensors on a CPU, without gradients; the weight may be laid out."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return found


def lay_out(weight: Tensor, rows: int) -> LaidOut:
    """A parameter for products with about so many rows."""
    with torch.inference_mode():
        own = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
    return LaidOut(own, weight, _state(weight))


def _state(parameter: Tensor) -> tuple[int, int]:
    return parameter._version, parameter.data_ptr()


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu" and tensor.dtype == torch.float32
