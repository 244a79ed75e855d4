"""Activations and gradients rounded to 16 bits, as training in that format would: an approximation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Round(torch.autograd.Function):
    """x rounded to a format, and its gradient too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, to: torch.dtype) -> Tensor:
        """Return x rounded, in its own type."""
        ctx.to = to
        return x.to(to).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Return the gradient rounded."""
        return gradients[0].to(ctx.to).to(gradients[0].dtype), None


@contextmanager
def rounded(model: nn.Module, name: str) -> Iterator[None]:
    """Round what each module without parts returns, and its gradient, while the context lasts.

    **Arguments:**

    - `model`: any module, in single precision.
    - `name`: of the format, such as `"bfloat16"`.
    """
    to: torch.dtype = getattr(torch, name)

    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        return Round.apply(output, to) if isinstance(output, Tensor) and output.is_floating_point() else None

    handles = [one.register_forward_hook(hook) for one in model.modules() if not list(one.children())]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
