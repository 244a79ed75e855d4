"""Activations as modules: shaped ReLU, whose slopes can be trained, shaped smooth functions and plain ones."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..checks import check_counts
from ..design import activations as definitions
from ..errors import InputError
from .fused import apply_autograd


class ShapedReLU(nn.Module):
    """Shaped ReLU: σ(x) = s₊ max(x, 0) + s₋ min(x, 0), s± = 1 + c±/√n [NC, ST; theory §2].

    ```python
    relu = st.nn.ShapedReLU(width=100, c_plus=0.0, c_minus=-1.0)
    relu(torch.tensor([-1.0, 1.0]))  # [-0.9, 1.0]
    ```

    **Arguments:**

    - `width`: n, the number of coordinates of a token.
    - `c_plus`, `c_minus`: the slopes minus 1, in units of 1/√n, default 0 and −1.
    - `learnable`: whether the slopes are parameters, default no.

    **Raises:** `InputError` if `width` is not a whole number of at least 1.
    """

    def __init__(self, width: int, c_plus: float = 0.0, c_minus: float = -1.0, *, learnable: bool = False) -> None:
        super().__init__()
        check_counts(width=width)
        for name, c in (("slope_plus", c_plus), ("slope_minus", c_minus)):
            slope = torch.tensor([1 + c / math.sqrt(width)])  # one element, not a scalar, which FSDP cannot shard
            if learnable:
                self.register_parameter(name, nn.Parameter(slope))
            else:
                self.register_buffer(name, slope)
        self.slope_plus: Tensor
        self.slope_minus: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return σ(x), elementwise."""
        return apply_autograd(_TwoSlopes, x, self.slope_plus.to(x.dtype), self.slope_minus.to(x.dtype))

    def second_moment(self, gain: float = 1.0) -> Tensor:
        """Return E σ(gain·g)², g ~ N(0, 1), for the current slopes, (1,)."""
        return gain**2 * (self.slope_plus**2 + self.slope_minus**2) / 2


class _TwoSlopes(torch.autograd.Function):
    """s₊ max(x, 0) + s₋ min(x, 0), in few passes over memory; only x is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plus: Tensor, minus: Tensor) -> Tensor:
        ctx.save_for_backward(x, plus, minus)
        return torch.addcmul(minus * x, functional.relu(x), plus - minus)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, plus, minus = ctx.saved_tensors
        _, want_plus, want_minus = ctx.needs_input_grad
        positive = torch.ops.aten.threshold_backward(gradient, x, 0.0)  # where x > 0, in one pass
        grad_x = (minus * gradient).addcmul_(positive, plus - minus)
        if not (want_plus or want_minus):
            return grad_x, None, None
        grad_plus = _sum_of_products(positive, x)
        return grad_x, grad_plus, _sum_of_products(gradient, x) - grad_plus


def _sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """Return Σ a·b, (1,), summed in at least 32 bits."""
    wide = torch.promote_types(a.dtype, torch.float32)
    return torch.dot(a.flatten().to(wide), b.flatten().to(wide)).to(a.dtype)[None]


def _erf(x: Tensor) -> Tensor:
    """Return erf(√π/2·x), whose slope at 0 is 1."""
    return torch.erf(math.sqrt(math.pi) / 2 * x)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "identity": lambda x: x,
    "erf": _erf,
    "arctan": torch.arctan,
    "sin": torch.sin,
    "softsign": functional.softsign,
}
"""PyTorch's form of the functions that definitions give by name."""


class Pointwise(nn.Module):
    """The activation of a definition other than the shaped ReLU, at a width.

    **Arguments:**

    - `definition`: an activation given by the name of its function.
    - `width`: n, the number of coordinates of a token.

    **Raises:** `InputError` for a NumPy function of the user's, which PyTorch cannot differentiate.
    """

    def __init__(self, definition: definitions.AnyActivation, width: int) -> None:
        super().__init__()
        name = definition.phi if isinstance(definition, definitions.ShapedSmooth) else getattr(definition, "name", None)
        if not isinstance(name, str):
            raise InputError(
                f"{definition} has a NumPy function, which PyTorch cannot differentiate: use one of "
                f"{', '.join(FUNCTIONS)}, or an nn.Module with forward(x) and second_moment(gain)"
            )
        self.definition, self.width, self.name = definition, width, name
        self.stretch = definition.a * math.sqrt(width) if isinstance(definition, definitions.ShapedSmooth) else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return σ(x), elementwise."""
        function = FUNCTIONS[self.name]
        return function(x) if self.stretch == 1 else self.stretch * function(x / self.stretch)

    def second_moment(self, gain: float = 1.0) -> float:
        """Return E σ(gain·g)², g ~ N(0, 1)."""
        return self.definition.second_moment(self.width, gain)

    def extra_repr(self) -> str:
        return f"{self.definition}, width={self.width}"


def activation(definition: definitions.AnyActivation, width: int) -> nn.Module:
    """Return the module of an activation's definition at a width."""
    if isinstance(definition, definitions.ShapedReLU):
        return ShapedReLU(width, definition.c_plus, definition.c_minus)
    return Pointwise(definition, width)
