"""Products with a weight as functions that PyTorch differentiates: the backward pass queries the transposed matrix.

To differentiate through the draws would be wrong, because the random images depend on the vectors (theory §7).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ...errors import InputError
from ..matrices.ledger import Ledger, Met
from ..matrices.once import Part, second_images
from ..matrices.pair import Pair
from ..matrices.streams import Side
from ..matrices.vectors import Units
from ..matrices.weight import Weight


@dataclass(eq=False, slots=True)
class Sum:
    """The gradient of vectors x that several matrices meet, summed before the part that depends on x alone is made.

    **Arguments:**

    - `ledger`: of the network.
    - `shape`: of x.
    - `task`: number of the backward pass.
    - `parts`: the matrices' own parts, summed for each x as met (one unless x was changed and met again).
    - `whole`: the sum of all other contributions, (m, a).
    """

    ledger: Ledger
    shape: torch.Size
    task: int = -1
    parts: dict[Met, Part] | None = None
    whole: Tensor | None = None

    def add(self, weight: Weight, side: Side, gradient: Tensor) -> None:
        """Add the contribution of a matrix, given the gradient of its product."""
        task = torch._C._current_graph_task_id()
        if task != self.task:  # an earlier pass ended before it came to x
            self.task, self.parts, self.whole = task, None, None
        found = weight.own_part(side, gradient)
        if found is None:
            images = weight.images(side, gradient)
            self.whole = images if self.whole is None else self.whole.add_(images)
            return
        part, met = found
        self.parts = self.parts or {}
        if met in self.parts:
            self.parts[met].add(part)
        else:
            self.parts[met] = part

    def take(self) -> Tensor | None:
        """Return the sum, in the shape of x, and forget it; `None` where nothing was added."""
        parts, total = self.parts or {}, self.whole
        self.parts, self.whole = None, None
        for met, part in parts.items():
            images = second_images(part, met.vectors, self.ledger.factor(met))
            total = images if total is None else total.add_(images)
        return None if total is None else total.view(self.shape)


class Shared(torch.autograd.Function):
    """The identity, of vectors x that matrices meet: their backward passes share what depends on x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, total: Sum) -> Tensor:
        """Return x."""
        ctx.total = total
        ctx.set_materialize_grads(False)
        return x.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:  # noqa: ARG004
        """Return the sum of the matrices' contributions; they come by `Sum.add`, and none by PyTorch."""
        return ctx.total.take(), None


_shared = WeakTensorKeyDictionary()
"""Of vectors that matrices meet: their count of changes in place, what `Shared` made of them, and its sum."""


def share(x: Tensor, ledger: Ledger) -> tuple[Tensor, Sum | None]:
    """Return vectors to be given to all matrices that meet x, and the sum of what they contribute to its gradient.

    None where x is a leaf, or requires no gradient.
    """
    if x.is_leaf or not torch.is_grad_enabled():
        return x, None
    if x not in _shared or _shared[x][0] != x._version:
        total = Sum(ledger, x.shape)
        _shared[x] = x._version, Shared.apply(x, total), total
    return _shared[x][1:]


class Product(torch.autograd.Function):
    """x ↦ x·W (side left) or x·Wᵀ (side right)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parameter: Tensor, weight: Weight, side: Side, total: Sum | None) -> Tensor:  # noqa: ARG004
        """Return the product with vectors x, (m, a) or (m, b).

        `parameter` only says whether W has a gradient; `total` is where the gradient of x is summed, or `None`.
        """
        ctx.weight, ctx.side, ctx.version, ctx.total = weight, side, weight.version, total
        ctx.save_for_backward(x)
        out = weight.images(side, x)
        ctx.image = size_of(out) if ctx.needs_input_grad[1] else 0.0
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Return the gradient of x, and add the term of this product to the gradient of W."""
        _check(ctx.weight, ctx.version)
        x, gradient = ctx.saved_tensors[0].detach(), gradients[0].detach().contiguous()
        other: Side = "left" if ctx.side == "right" else "right"
        result = None
        if ctx.needs_input_grad[0] and ctx.total is None:
            result = ctx.weight.images(other, gradient)
        elif ctx.needs_input_grad[0]:
            ctx.total.add(ctx.weight, other, gradient)
        if ctx.needs_input_grad[1]:
            x = ctx.weight.known.kept(x)
            left, right = (x, gradient) if ctx.side == "left" else (gradient, x)
            pair = Pair(left, right, ctx.side, ctx.image)
            ctx.weight.add_gradient(pair, gradient.nbytes)
        return result, None, None, None, None


class LookUp(torch.autograd.Function):
    """Rows of W by their numbers."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, weight: Weight, units: Units, padding: int | None) -> Tensor:  # noqa: ARG004
        """Return the rows, (m, b); the row `padding` gets no gradient."""
        ctx.weight, ctx.units, ctx.padding, ctx.version = weight, units, padding, weight.version
        out = weight.images("left", units)
        ctx.image = size_of(out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Add the rows' term to the gradient of W."""
        _check(ctx.weight, ctx.version)
        gradient = gradients[0].detach().contiguous()
        if ctx.padding is not None:
            gradient = gradient.masked_fill((ctx.units.rows == ctx.padding)[:, None], 0)
        ctx.weight.add_gradient(Pair(ctx.units, gradient, "left", ctx.image), gradient.nbytes)
        return None, None, None, None


def size_of(x: Tensor) -> float:
    """Return the Frobenius norm of a tensor."""
    return float(torch.linalg.vector_norm(x))


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
