"""Gradient descent of weightless models: with momentum and weight decay, exact in distribution."""

from typing import Any
from weakref import WeakKeyDictionary

import torch

from ...errors import InputError
from ..matrices.pair import Pair
from ..matrices.weight import Weight
from .base import Parameters, WeightlessOptimiser


class SGD(WeightlessOptimiser, torch.optim.SGD):
    """Gradient descent for a weightless model, as `torch.optim.SGD` for a real one.

    A trained matrix is a combination of the initial one and the terms xᵀg of earlier gradients, so that its products
    are exact after any number of steps; each step adds the vectors of its batch to what is kept (theory §7).

    ```python
    model = st.weightless.build(lambda: st.nn.ShapedTransformer(width=4096, depth=2), seed=0)
    optimiser = st.weightless.SGD(model, lr=0.1, momentum=0.9)
    model(torch.randn(1, 4, 4096)).square().mean().backward()
    optimiser.step()
    ```

    PyTorch's schedulers of the learning rate take it.

    **Arguments:**

    - `params`: a weightless model, its parameters, or groups of them with settings of their own. Make the optimiser
      before the first backward pass, whose vectors are kept from then.
    - `lr`: learning rate, default 1e-3.
    - `momentum`: μ, default 0. The first step takes the gradient itself, as in PyTorch.
    - `dampening`: τ, default 0; later steps add (1 − τ) times the gradient to μ times the buffer.
    - `weight_decay`: λ, default 0; λ·W is added to the gradient.
    - `nesterov`: whether the step is the gradient plus μ times the buffer, default no.

    **Raises:** `InputError` for another model, numbers that do not fit, or a model whose backward pass was not kept.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        *,
        nesterov: bool = False,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise InputError("nesterov=True needs a positive momentum and no dampening")
        self._buffers: WeakKeyDictionary[Weight, tuple[float, dict[Pair, float]]] = WeakKeyDictionary()
        self._undecayed: WeakKeyDictionary[Weight, dict[Pair, float]] = WeakKeyDictionary()
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov
        )

    def _step_unseen(self, weight: Weight, group: dict[str, Any], number: int) -> None:
        lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
        if weight.updates:
            raise InputError(f"{weight.name} was trained with AdamW: continue with AdamW")
        initial, terms = decay * weight.initial, combined(weight.gradient, 1.0, weight.terms, decay)
        if momentum:
            if weight in self._buffers:
                rest = 1 - group["dampening"]
                old_initial, old = self._buffers[weight]
                buffer = rest * initial + momentum * old_initial, combined(terms, rest, old, momentum)
            else:
                buffer = initial, terms
            if buffer[0] or buffer[1]:
                self._buffers[weight] = buffer
            else:  # so that a weight that never had a gradient may still be drawn whole
                self._buffers.pop(weight, None)
            if group["nesterov"]:
                initial, terms = initial + momentum * buffer[0], combined(terms, 1.0, buffer[1], momentum)
            else:
                initial, terms = buffer
        weight.initial -= lr * initial
        weight.terms = combined(weight.terms, 1.0, terms, -lr)
        weight.last = combined(self._step_without_decay(weight, group), -lr, {}, 0.0)

    def _step_without_decay(self, weight: Weight, group: dict[str, Any]) -> dict[Pair, float]:
        """Return the direction of a step of the gradients alone."""
        terms, momentum = combined(weight.gradient, 1.0, {}, 0.0), group["momentum"]
        if not momentum:
            return terms
        old = self._undecayed.get(weight)
        buffer = terms if old is None else combined(terms, 1 - group["dampening"], old, momentum)
        self._undecayed[weight] = buffer
        return combined(terms, 1.0, buffer, momentum) if group["nesterov"] else buffer


def combined(first: dict[Pair, float], c: float, second: dict[Pair, float], d: float) -> dict[Pair, float]:
    """Return c·first + d·second, without terms of factor 0."""
    total = {pair: c * value for pair, value in first.items()}
    for pair, value in second.items():
        total[pair] = total.get(pair, 0.0) + d * value
    return {pair: value for pair, value in total.items() if value != 0}
