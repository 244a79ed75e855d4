"""Products with a weight as functions that PyTorch differentiates: the backward pass queries the transposed matrix.

To differentiate through the draws would be wrong, because the random images depend on the vectors (theory §7).
"""

from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ..matrices.streams import Side
from ..matrices.vectors import Units
from ..matrices.weight import Pair, Weight


class Product(torch.autograd.Function):
    """x ↦ x·W (side left) or x·Wᵀ (side right)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parameter: Tensor, weight: Weight, side: Side) -> Tensor:  # noqa: ARG004
        """Return the product with vectors x, (m, a) or (m, b); `parameter` only says whether W has a gradient."""
        ctx.weight, ctx.side, ctx.version = weight, side, weight.version
        ctx.save_for_backward(x)
        return weight.images(side, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Return the gradient of x, and add the term of this product to the gradient of W."""
        _check(ctx.weight, ctx.version)
        x, gradient = ctx.saved_tensors[0].detach(), gradients[0].detach().contiguous()
        other: Side = "left" if ctx.side == "right" else "right"
        result = ctx.weight.images(other, gradient) if ctx.needs_input_grad[0] else None
        if ctx.needs_input_grad[1]:
            x = ctx.weight.known.kept(x)
            pair = Pair(x, gradient) if ctx.side == "left" else Pair(gradient, x)
            ctx.weight.add_gradient(pair, gradient.nbytes)
        return result, None, None, None


class LookUp(torch.autograd.Function):
    """Rows of W by their numbers."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, weight: Weight, units: Units, padding: int | None) -> Tensor:  # noqa: ARG004
        """Return the rows, (m, b); the row `padding` gets no gradient."""
        ctx.weight, ctx.units, ctx.padding, ctx.version = weight, units, padding, weight.version
        return weight.images("left", units)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Add the rows' term to the gradient of W."""
        _check(ctx.weight, ctx.version)
        gradient = gradients[0].detach().contiguous()
        if ctx.padding is not None:
            gradient = gradient.masked_fill((ctx.units.rows == ctx.padding)[:, None], 0)
        ctx.weight.add_gradient(Pair(ctx.units, gradient), gradient.nbytes)
        return None, None, None, None


def _check(weight: Weight, version: int) -> None:
    """Refuse a backward pass that is to be differentiated again, or of a weight that was changed since."""
    if weight.version != version:
        raise InputError(
            f"{weight.name} was changed between the forward and the backward pass, by a step of an optimiser or by "
            "redraw: call backward() first"
        )
    if torch.is_grad_enabled():
        raise InputError(
            f"{weight.name}: second derivatives of a weightless model are not supported: call backward without "
            "create_graph=True"
        )
