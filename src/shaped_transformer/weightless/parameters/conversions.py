"""Conversions of a weightless parameter to what it is already; others are refused."""

from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from .registry import SERVED, served
from .tensor import first_weightless


@served(torch.autograd.grad)
def autograd_grad(outputs: Any, inputs: Any, *_: Any, **__: Any) -> Any:
    """Refuse to return the gradient of a weightless parameter."""
    raise InputError(
        f"{first_weightless((inputs, outputs)).source.name}: torch.autograd.grad cannot return its gradient, which is "
        "never formed: call backward() and st.weightless.gradient_norms(model)"
    )


@served(torch.Tensor.__format__)
def formatted(self: Any, specification: str) -> str:
    """Serve the text in f-strings."""
    return format(repr(self), specification)


@served(torch.Tensor.contiguous, torch.Tensor.cpu, torch.Tensor.to)
def unchanged(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Serve conversions to what the parameter is already."""
    wanted = [*args, *kwargs.values()]
    types = [one.dtype if isinstance(one, Tensor) else one for one in wanted if isinstance(one, torch.dtype | Tensor)]
    devices = [torch.device(one).type for one in wanted if isinstance(one, str | torch.device)]
    if any(one != self.dtype for one in types) or any(one != "cpu" for one in devices):
        raise InputError(
            f"{self.source.name}: a weightless model has {self.dtype}, computes on the CPU and cannot be moved "
            f"or converted to {', '.join(map(str, (*types, *devices)))}: give dtype=torch.float32 or torch.float64 "
            "when building"
        )
    return self


SERVED[torch.Tensor.float] = lambda self: unchanged(self, torch.float32)
SERVED[torch.Tensor.double] = lambda self: unchanged(self, torch.float64)
SERVED[torch.Tensor.type] = lambda self, *args, **kwargs: unchanged(self, *args, **kwargs)
SERVED[torch.Tensor.half] = lambda self: unchanged(self, torch.float16)
SERVED[torch.Tensor.bfloat16] = lambda self: unchanged(self, torch.bfloat16)
SERVED[torch.Tensor.cuda] = lambda self, *_, **__: unchanged(self, "cuda")
SERVED[torch.Tensor.type_as] = lambda self, other: unchanged(self, other)
SERVED[torch.Tensor.data.__set__] = lambda self, new: unchanged(self, new)  # type: ignore[attr-defined]
SERVED[torch._has_compatible_shallow_copy_type] = lambda *_: True
