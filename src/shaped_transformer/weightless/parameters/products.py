"""Products of vectors with a weightless matrix, or with a stack of them."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import InputError
from ..matrices.streams import Side
from ..matrices.weight import Weight
from .autograd import Product, Sum, share
from .registry import served
from .tensor import WeightlessTensor, refuse
from .views import transpose, unbind


def multiply(x: Tensor, w: WeightlessTensor) -> Tensor:
    """Return x·W, (…, b), for vectors x (…, a) and a matrix, transposed or not, or a part of one, (a, b)."""
    if isinstance(x, WeightlessTensor):
        raise InputError(x.source.refusal(f"its product with {w.source.name}"))
    check_input(x, w)
    if x.shape[-1] != w.shape[0]:
        raise InputError(f"{w.source.name}: vectors of length {w.shape[0]} are expected (got {x.shape[-1]})")
    view, weight = w.view_of, w.weight
    weight.draw_if_cheaper(x.shape[:-1].numel())
    if weight.real is not None:
        values = weight.real if w.requires_grad else weight.real.detach()
        rows, columns = view.rows or (0, weight.shape[0]), view.columns or (0, weight.shape[1])
        part = values[rows[0] : rows[1], columns[0] : columns[1]]
        return x @ (part.T if view.transposed else part)
    side: Side = "right" if view.transposed else "left"
    inward, outward = (view.columns, view.rows) if view.transposed else (view.rows, view.columns)
    shared, total = share(x, weight.ledger) if inward is None else (x, None)
    flat = shared.reshape(-1, x.shape[-1])
    if inward is not None:
        flat = functional.pad(flat, (inward[0], weight.shape[view.transposed] - inward[1]))
    if len(flat) == 0:
        return flat.new_zeros(*x.shape[:-1], w.shape[1])
    out = product(flat, w, weight, side, total)
    out = out if outward is None else out[:, outward[0] : outward[1]]
    return out.reshape(*x.shape[:-1], w.shape[1])


def check_input(x: Tensor, w: WeightlessTensor) -> None:
    """Check that a tensor can meet a parameter.

    **Raises:** `InputError` where its type, device or layout is another one, or where it has no axes.
    """
    if x.dtype != w.dtype:
        raise InputError(
            f"{w.source.name} has {w.dtype}, but met vectors of {x.dtype}: give dtype= when building, and leave "
            "autocast off"
        )
    if x.device.type != "cpu" or x.layout != torch.strided or x.dim() == 0:
        raise InputError(
            f"{w.source.name}: dense vectors on the CPU are expected (got {tuple(x.shape)} on {x.device}, {x.layout})"
        )


def product(x: Tensor, w: WeightlessTensor, weight: Weight, side: Side, total: Sum | None = None) -> Tensor:
    """Return the product of vectors with a matrix, which remembers them; `total` is as in `autograd.Product`.

    **Raises:** `InputError` for so many vectors that a single product would not fit into memory.
    """
    if torch.is_autocast_enabled("cpu"):
        raise InputError(
            "autocast does not work with a weightless model: its products are in the dtype it was built with"
        )
    needed = len(x) * (sum(weight.shape) * x.itemsize + 3 * 8 * len(x))  # vectors, images, Gram matrix and factor
    if needed > weight.ledger.limit:
        raise InputError(
            f"{weight.name} meets {len(x):,} vectors in one pass, which needs {needed / 1e9:.3g} GB, more than the "
            f"limit of {weight.ledger.limit / 1e9:.3g} GB: give fewer tokens, or a larger memory="
        )
    if not torch.is_grad_enabled():
        x = x.clone()  # outside of autograd nothing forbids the model to change x in place afterwards
    out: Tensor = Product.apply(x, w, weight, side, total)
    return out


def multiply_flat(x: Tensor, w: WeightlessTensor, split: int, *, transposed: bool) -> Tensor:
    """Return the product of vectors (m, k) with a parameter of several axes as a matrix.

    **Arguments:**

    - `x`: vectors, as long as the product of the first `split` axes, or of the others if `transposed`.
    - `w`: the whole parameter.
    - `split`: number of axes that make the rows of the matrix.
    - `transposed`: whether to multiply with the transposed matrix.
    """
    check_input(x, w)
    weight = w.source.matrix(split)
    weight.draw_if_cheaper(len(x))
    if weight.real is not None:
        values = weight.real if w.requires_grad else weight.real.detach()
        return x @ (values.T if transposed else values)
    return product(x, w, weight, "right" if transposed else "left")


@served(functional.linear)
def linear(input: Any, weight: Any, bias: Any = None) -> Any:  # noqa: A002 - PyTorch's name
    """Serve x·Wᵀ + b."""
    if not isinstance(weight, WeightlessTensor) or isinstance(bias, WeightlessTensor):
        refuse(functional.linear, (input, weight, bias))
    out = multiply(input, transpose(weight))
    return out if bias is None else out + bias


@served(
    torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.Tensor.mm, torch.bmm, torch.Tensor.bmm
)
def matmul(input: Any, other: Any) -> Any:  # noqa: A002
    """Serve x·W and W·x, and such products with stacks of matrices."""
    if isinstance(other, WeightlessTensor):
        if other.dim() == 2:
            return multiply(input, other)
        if input.dim() == 1:
            return matmul(input[None], other)[..., 0, :]
        batch = input.expand(*torch.broadcast_shapes(input.shape[:-2], (len(other),)), *input.shape[-2:])
        matrices = unbind(other) * (batch.shape[-3] // len(other))
        return torch.stack([multiply(x, w) for x, w in zip(batch.unbind(-3), matrices, strict=True)], -3)
    if input.dim() == 2:
        product = multiply(other if other.dim() == 1 else other.mT, transpose(input))
        return product if other.dim() == 1 else product.mT
    return matmul(other.mT, transpose(input)).mT


@served(torch.Tensor.__rmatmul__)
def rmatmul(self: Any, other: Any) -> Any:
    """Serve the operator x @ W where Python asks W."""
    return matmul(other, self)


@served(torch.mv, torch.Tensor.mv)
def mv(input: Any, vec: Any) -> Any:  # noqa: A002
    """Serve W·x."""
    return matmul(input, vec)


@served(torch.addmm, torch.Tensor.addmm)
def addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Any:  # noqa: A002
    """Serve β·b + α·x·W."""
    product = matmul(mat1, mat2)
    return (
        beta * input + (product if alpha == 1 else alpha * product)
        if beta != 1
        else torch.add(input, product, alpha=alpha)
    )


@served(torch.baddbmm, torch.Tensor.baddbmm)
def baddbmm(input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Any:  # noqa: A002
    """Serve β·b + α·x·W for stacks of matrices."""
    return beta * input + alpha * matmul(batch1, batch2)
