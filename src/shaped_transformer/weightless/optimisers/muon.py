"""Muon of weightless models: the Newton–Schulz iteration runs on a small core."""

import math
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ...checks import check_count, check_number
from ...errors import InputError
from ..matrices.factor import factorise, tolerance
from ..matrices.pair import Pair
from ..matrices.vectors import Units
from ..matrices.weight import Weight
from ..parameters.tensor import WeightlessTensor
from .base import Parameters, WeightlessOptimiser, as_groups
from .sgd import combined

MOST_STEPS = 100
"""Number of iterations from which on PyTorch refuses them."""


class Muon(WeightlessOptimiser, torch.optim.Muon):
    """Muon for matrices of a weightless model, as `torch.optim.Muon` for those of a real one.

    The momentum is B = LᵀR with few rows in L and R, so that B = QᵀMP with orthonormal rows of Q and P and a small M.
    The Newton–Schulz iteration is an odd function of singular values: that of B is QᵀN(M)P (theory §7). It runs in
    double precision here; PyTorch's runs in bfloat16, and differs by its rounding.

    ```python
    model = st.weightless.build(lambda: st.nn.ShapedTransformer(width=1024, depth=2, heads=8), seed=0)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    optimiser = st.weightless.Muon(matrices, lr=0.02)
    model(torch.randn(1, 4, 1024)).square().mean().backward()
    optimiser.step()
    ```

    **Arguments:**

    - `params`: matrices of a weightless model, or groups of them with settings of their own. Other parameters need
      another optimiser, such as `AdamW`. Make both before the first backward pass, whose vectors are kept from then.
    - `lr`: learning rate, default 1e-3.
    - `weight_decay`: λ, default 0.1; each step multiplies the weights by 1 − lr·λ.
    - `momentum`: μ, default 0.95.
    - `nesterov`: default yes.
    - `ns_coefficients`: of the iteration, default (3.4445, −4.775, 2.0315).
    - `eps`: smallest norm by which B is divided, default 1e-7.
    - `ns_steps`: iterations, default 5.
    - `adjust_lr_fn`: `"original"` (default) multiplies the rate by √max(1, a/b) for a weight (a, b),
      `"match_rms_adamw"` by 0.2·√max(a, b).

    **Raises:** `InputError` for another model, a parameter that is no matrix, numbers that do not fit, or a model whose
    backward pass was not kept.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        *,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        groups = as_groups(params)
        for one in (p for group in groups for p in group["params"] if p.dim() != 2):
            name = one.source.name if isinstance(one, WeightlessTensor) else "a parameter"
            raise InputError(
                f"Muon is for matrices, and {name} has the shape {tuple(one.shape)}: give it to AdamW instead"
            )
        given = {"ns_coefficients": ns_coefficients, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn}
        for group in groups:
            check_iteration(given | group)
        self._buffers: WeakKeyDictionary[Weight, dict[Pair, float]] = WeakKeyDictionary()
        super().__init__(
            groups,
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            nesterov=nesterov,
            ns_coefficients=ns_coefficients,
            eps=eps,
            ns_steps=ns_steps,
            adjust_lr_fn=adjust_lr_fn,
        )

    def _step_unseen(self, weight: Weight, group: dict[str, Any], number: int) -> None:
        momentum, gradient = group["momentum"], weight.gradient
        buffer = combined(gradient, 1 - momentum, self._buffers.get(weight, {}), momentum)
        self._buffers[weight] = buffer
        update = combined(gradient, 1 - momentum, buffer, momentum) if group["nesterov"] else buffer
        rate = -group["lr"] * _factor(group["adjust_lr_fn"], weight.shape)
        weight.scale(1 - group["lr"] * group["weight_decay"])
        weight.last = {}
        if update:
            for pair in update:
                pair.check(weight.name)
            weight.last = {orthogonalised(update, weight.ledger.dtype, group): rate}
        weight.terms = combined(weight.terms, 1.0, weight.last, 1.0)


def check_iteration(settings: dict[str, Any]) -> None:
    """Check what a group says about the iteration, and about the factor of its rate.

    **Raises:** `InputError` for what does not fit.
    """
    kind, coefficients = settings["adjust_lr_fn"], settings["ns_coefficients"]
    if kind not in (None, "original", "match_rms_adamw"):
        raise InputError(f'adjust_lr_fn must be "original" or "match_rms_adamw" (got {kind!r})')
    if not isinstance(coefficients, Sequence) or len(coefficients) != 3:
        raise InputError(f"ns_coefficients must be three numbers (got {coefficients!r})")
    for one in coefficients:
        check_number(one, "ns_coefficients")
    if check_count(settings["ns_steps"], "ns_steps", least=0) >= MOST_STEPS:
        raise InputError(f"ns_steps must be below {MOST_STEPS}, as in PyTorch (got {settings['ns_steps']})")


def orthogonalised(terms: dict[Pair, float], dtype: torch.dtype, group: dict[str, Any]) -> Pair:
    """Return what the Newton–Schulz iteration makes of a sum of terms, as one term."""
    left = torch.cat([c * _dense(pair.left, dtype) for pair, c in terms.items()])
    right = torch.cat([_dense(pair.right, dtype) for pair in terms])
    before, after = (factorise(one, tolerance(dtype)) for one in (left, right))
    core = before.coordinates.double().T @ after.coordinates.double()
    core = newton_schulz(core, group["ns_coefficients"], group["ns_steps"], group["eps"])
    return Pair(core.T.to(dtype) @ (before.inverse.to(dtype) @ left), after.inverse.to(dtype) @ right)


def newton_schulz(x: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Return the iteration x ← a·x + (b·xxᵀ + c·(xxᵀ)²)·x, from x over its norm, or over ε if that is larger."""
    a, b, c = coefficients
    x = x / torch.linalg.vector_norm(x).clamp(min=eps)
    for _ in range(steps):
        squares = x @ x.T
        x = a * x + (b * squares + c * squares @ squares) @ x
    return x


def _factor(kind: str | None, shape: tuple[int, int]) -> float:
    """Return by what the learning rate of a matrix is multiplied."""
    a, b = shape
    return 0.2 * math.sqrt(max(a, b)) if kind == "match_rms_adamw" else math.sqrt(max(1, a / b))


def _dense(x: Tensor | Units, dtype: torch.dtype) -> Tensor:
    """Return vectors in full."""
    return x.dense(dtype) if isinstance(x, Units) else x
