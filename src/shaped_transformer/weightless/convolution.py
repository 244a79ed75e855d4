"""Convolutions and einsum of two factors as products with a matrix."""

import math
import string
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InputError
from .operations import check_input, multiply, product, served, transpose
from .parameter import WeightlessTensor, refuse


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


@served(functional.conv1d, functional.conv2d)
def convolve(
    input: Any,  # noqa: A002 - PyTorch's name
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Serve a convolution of one group: its weight meets the patches of the input."""
    axes = weight.dim() - 2
    if groups != 1 or isinstance(padding, str) or isinstance(input, WeightlessTensor) or not weight.view_of.whole:
        refuse(functional.conv2d, weight)
    single = input.dim() == axes + 1
    x = input[None] if single else input
    stride, padding, dilation = (_tuple(one, axes) for one in (stride, padding, dilation))
    kernel = tuple(weight.shape[2:])
    check_input(input, weight)
    if x.dim() != axes + 2 or x.shape[1] != weight.shape[1]:
        raise InputError(
            f"{weight.source.name}: inputs with {weight.shape[1]} channels and {axes} more axes are expected (got "
            f"{tuple(input.shape)})"
        )
    sizes = [
        (size + 2 * pad - reach * (k - 1) - 1) // step + 1
        for size, pad, reach, k, step in zip(x.shape[2:], padding, dilation, kernel, stride, strict=True)
    ]
    if min(sizes) < 1:
        raise InputError(f"{weight.source.name}: the input {tuple(input.shape)} is smaller than the kernel")
    if axes == 1:
        x, kernel, stride = x[:, :, None], (1, *kernel), (1, *stride)
        padding, dilation = (0, *padding), (1, *dilation)
    patches = functional.unfold(x, kernel, dilation, padding, stride).mT
    images = multiply_flat(patches.reshape(-1, patches.shape[-1]), weight, 1, transposed=True)
    out = images.reshape(len(x), -1, weight.shape[0]).mT.reshape(len(x), weight.shape[0], *sizes)
    out = out if bias is None else out + bias.view(-1, *(1,) * axes)
    return out[0] if single else out


@served(torch.einsum)
def einsum(equation: Any, *operands: Any) -> Any:
    """Serve the product of vectors with a parameter whose axes are summed first or last."""
    factors = operands[0] if len(operands) == 1 and isinstance(operands[0], tuple | list) else operands
    found = [number for number, one in enumerate(factors) if isinstance(one, WeightlessTensor)]
    if not isinstance(equation, str) or len(factors) != 2 or len(found) != 1:
        refuse(torch.einsum, (equation, *operands))
    letters, result = _letters(equation, factors[1 - found[0]].dim())
    if [len(one) for one in letters] != [one.dim() for one in factors]:
        refuse(torch.einsum, factors)
    w, own = factors[found[0]], letters[found[0]]
    x, others = factors[1 - found[0]], letters[1 - found[0]]
    summed = [letter for letter in own if letter in others and letter not in result]
    kept = [letter for letter in own if letter not in others and letter in result]
    known = len(set(own)) == len(own) and len(set(others)) == len(others) and set(others) <= {*summed, *result}
    if own[0] in others and own[0] in result and w.dim() == 3 and known:
        return _einsum_of_stack(x, w, (others, own, result))
    first, last = "".join(summed) + "".join(kept), "".join(kept) + "".join(summed)
    if not known or not summed or not kept or own not in (first, last) or (w.dim() > 2 and not w.view_of.whole):
        refuse(torch.einsum, w)
    free = [letter for letter in others if letter not in summed]
    ordered = x.permute([others.index(letter) for letter in (*free, *summed)])
    sizes = dict(zip(own, w.shape, strict=True)) | dict(zip(others, x.shape, strict=True))
    flat = ordered.reshape(-1, math.prod(sizes[letter] for letter in summed))
    if w.dim() == 2:
        out = multiply(flat, w if own == first else transpose(w))
    else:
        split = len(summed) if own == first else len(kept)
        out = multiply_flat(flat, w, split, transposed=own == last)
    out = out.reshape([sizes[letter] for letter in (*free, *kept)])
    return out.permute([(*free, *kept).index(letter) for letter in result])


def _letters(equation: str, axes: int) -> tuple[list[str], str]:
    """Return the letters of the factors and of the result, those for dots that stand for some of `axes` included."""
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    if not arrow:
        once = sorted(letter for letter in inputs if letter.isalpha() and inputs.count(letter) == 1)
        result = "".join(["..." if "..." in inputs else "", *once])
    dotted = next((one for one in inputs.split(",") if "..." in one), "")
    free = [letter for letter in string.ascii_letters if letter not in equation]
    dots = "".join(free[: max(axes + 3 - len(dotted), 0)])
    return inputs.replace("...", dots).split(","), result.replace("...", dots)


def _einsum_of_stack(x: Tensor, w: WeightlessTensor, letters: tuple[str, str, str]) -> Tensor:
    """Return the einsum with a stack of matrices whose first axis, such as the experts', is in all three."""
    others, own, result = letters
    at, inner = others.index(own[0]), others.replace(own[0], "")
    equation = f"{inner},{own[1:]}->{result.replace(own[0], '')}"
    parts = [einsum(equation, x.select(at, index), w[index]) for index in range(len(w))]
    return torch.stack(parts, result.index(own[0]))


def _tuple(value: Any, count: int) -> tuple[int, ...]:
    """Return a number for each axis."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * count
