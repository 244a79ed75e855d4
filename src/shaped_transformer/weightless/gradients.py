"""Norms of gradients that are never formed, and clipping by their global norm."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from ..checks import check_number
from ..errors import InputError
from .network import network_of
from .parameters.tensor import WeightlessTensor


class GradientNorms(dict[str, float]):
    """Norms of the gradient by parameter.

    **Arguments:**

    - `norms`: name → norm.
    - `approximate`: names of the weights for which a Gaussian of equal variance stands (`approximate=True`).
    """

    def __init__(self, norms: Mapping[str, float], approximate: Iterable[str] = ()) -> None:
        super().__init__(norms)
        self.approximate = frozenset(approximate)

    def __repr__(self) -> str:
        note = f", Gaussian stands for another distribution in {len(self.approximate)}" if self.approximate else ""
        return f"<{len(self)} gradient norms{note}: {dict(self)}>"


def gradient_norms(model: nn.Module) -> GradientNorms:
    """Return the Frobenius norm of the gradient of each parameter since gradients were last cleared.

    That of a weight matrix is computed from inner products: ‖xᵀg‖² = Σ_ij (x_i·x_j)(g_i·g_j) (theory §7).

    **Arguments:**

    - `model`: a weightless model, after a backward pass.

    **Returns:** name → norm, of the parameters that have a gradient.

    **Raises:** `InputError` for another model.
    """
    network = network_of(model)
    norms: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if isinstance(parameter, WeightlessTensor):
            source = parameter.source
            parts = [norm for norm in (weight.gradient_norm() for weight in source.parts()) if norm is not None]
            if source.data is not None and source.data.grad is not None and not source.parts():
                parts.append(float(torch.linalg.vector_norm(source.data.grad, dtype=torch.float64)))
            if parts:
                norms[name] = math.hypot(*parts)
        elif parameter.grad is not None:
            norms[name] = float(torch.linalg.vector_norm(parameter.grad, dtype=torch.float64))
    return GradientNorms(norms, network.approximate)


def clip_grad_norm_(model: nn.Module, max_norm: float) -> float:
    """Scale all gradients, weightless and real, so that their global norm is at most `max_norm`.

    **Arguments:**

    - `model`: a weightless model, after a backward pass.
    - `max_norm`: a positive number.

    **Returns:** the global norm before clipping. As in PyTorch, the factor is max_norm/(norm + 1e-6), at most 1.

    **Raises:** `InputError` for another model, or a norm that is not positive.
    """
    if not check_number(max_norm, "max_norm") > 0:
        raise InputError(f"max_norm must be positive (got {max_norm:g})")
    total = math.hypot(*gradient_norms(model).values())
    factor = min(1.0, max_norm / (total + 1e-6))
    for parameter in model.parameters():
        if isinstance(parameter, WeightlessTensor):
            parameter.source.scale_gradient(factor)
        elif parameter.grad is not None:
            parameter.grad.mul_(factor)
    return total
