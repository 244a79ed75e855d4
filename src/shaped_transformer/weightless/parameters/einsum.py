"""Einsum of two factors as a product with a matrix."""

import math
import string
from typing import Any

import torch
from torch import Tensor

from .products import multiply, multiply_flat
from .registry import served
from .tensor import WeightlessTensor, refuse
from .views import transpose


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
