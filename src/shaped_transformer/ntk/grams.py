"""The tangent kernel of a weightless model, from inner products of the vectors that each weight has met (theory §8)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..numerics.arrays import Floats
from ..weightless.matrices.pair import Pair
from ..weightless.matrices.vectors import Units, Vectors, inner
from ..weightless.matrices.weight import Weight
from ..weightless.parameters.tensor import WeightlessTensor

Terms = Mapping[Pair, float]
"""A gradient Σ c·uᵀv."""


@dataclass
class _Gradient:
    """The derivative of one output.

    **Arguments:**

    - `terms`: by weight that is never drawn, the terms of its gradient.
    - `values`: by the name of a parameter with values, its gradient.
    """

    terms: dict[Weight, Terms] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)


def kernel_from_grams(model: nn.Module, outputs: Tensor, names: list[str]) -> Floats:
    """Return Θ from one backward pass for each output.

    **Arguments:**

    - `model`: a weightless model; its gradients are cleared.
    - `outputs`: in a row, with their graph.
    - `names`: of the parameters that count.

    **Raises:** `InputError` where the vectors of a backward pass were not kept, or no output depends on a parameter.
    """
    if not outputs.requires_grad:
        raise InputError("the outputs depend on no parameter that requires gradients")
    found = []
    try:
        for number in range(len(outputs)):
            _clear(model)
            outputs[number].backward(retain_graph=True)
            found.append(_gradient(model, names))
    finally:
        _clear(model)
    kernel = np.zeros((len(found), len(found)))
    for i, first in enumerate(found):
        for j, second in enumerate(found[: i + 1]):
            kernel[i, j] = kernel[j, i] = _product(first, second)
    return kernel


def _gradient(model: nn.Module, names: list[str]) -> _Gradient:
    """Return the gradient that a backward pass has left, of the parameters that count."""
    out = _Gradient()
    for name, parameter in model.named_parameters():
        if name not in names:
            continue
        if not isinstance(parameter, WeightlessTensor):
            if parameter.grad is not None:
                out.values[name] = parameter.grad.flatten().clone()
            continue
        source = parameter.source
        for number, weight in source.weights.items():
            if weight.forgotten is not None:
                raise InputError(
                    f"{name}: the vectors of its backward pass were not kept, to save memory: build the model with "
                    "history=True"
                )
            if weight.real is not None:
                if weight.real.grad is not None:
                    out.values[f"{name} {number}"] = weight.real.grad.flatten().clone()
            elif weight.gradient:
                for pair in weight.gradient:
                    pair.check(name)
                out.terms[weight] = {_shortened(pair): factor for pair, factor in weight.gradient.items()}
        if source.data is not None and source.data.grad is not None and not source.weights:
            out.values[name] = source.data.grad.flatten().clone()
    return out


def _shortened(pair: Pair) -> Pair:
    """Return a term without the vectors whose gradient is 0, as those of other inputs."""
    gradient = pair.right if pair.side == "left" else pair.left
    if isinstance(gradient, Units):
        return pair
    some = (gradient != 0).any(1)
    return pair if bool(some.all()) else Pair(_rows(pair.left, some), _rows(pair.right, some), pair.side)


def _rows(x: Vectors, some: Tensor) -> Vectors:
    """Return some of the vectors."""
    return Units(x.rows[some], x.width) if isinstance(x, Units) else x[some]


def _product(first: _Gradient, second: _Gradient) -> float:
    """Return the inner product of two gradients."""
    total = 0.0
    for weight in first.terms.keys() & second.terms.keys():
        for one, c in first.terms[weight].items():
            for other, d in second.terms[weight].items():
                left, right = inner(one.left, other.left, torch.float64), inner(one.right, other.right, torch.float64)
                total += c * d * float((left.double() * right.double()).sum())
    for name in first.values.keys() & second.values.keys():
        total += float(torch.dot(first.values[name].double(), second.values[name].double()))
    return total


def _clear(model: nn.Module) -> None:
    """Set all gradients to none."""
    for parameter in model.parameters():
        parameter.grad = None
