"""Gradient descent of weightless models: exact in distribution, with momentum and weight decay."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..checks import check_number
from ..errors import InputError
from .matrices.weight import Pair, Weight
from .network import network_of
from .parameters.source import Source
from .parameters.tensor import WeightlessTensor


class SGD(torch.optim.SGD):
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

    - `model`: a weightless model. Make the optimiser before the first backward pass, whose vectors are kept from then.
    - `lr`: learning rate, positive.
    - `momentum`: μ, default 0. The first step takes the gradient itself, as in PyTorch.
    - `weight_decay`: λ, default 0; λ·W is added to the gradient.

    **Raises:** `InputError` for another model, numbers that do not fit, or a model whose backward pass was not kept.
    """

    def __init__(self, model: nn.Module, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        network = network_of(model)
        for name, value in {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}.items():
            if not 0 <= check_number(value, name) < float("inf"):
                raise InputError(f"{name} must be a finite number of at least 0 (got {value:g})")
        sources = [one.source for one in model.parameters() if isinstance(one, WeightlessTensor)]
        if any(weight.forgotten is not None for source in sources for weight in source.parts()):
            raise InputError(
                "the vectors of the last backward pass were not kept: make the optimiser before the first pass, or "
                "call st.weightless.redraw(model, seed=...)"
            )
        network.ledger.history = True
        self._network, self._generation = network, network.generation
        self._buffers: WeakKeyDictionary[Weight | Source, Any] = WeakKeyDictionary()
        self._sources = sources
        real = [one for one in model.parameters() if not isinstance(one, WeightlessTensor) and one.requires_grad]
        super().__init__(real or [torch.zeros(0)], lr=lr, momentum=momentum, weight_decay=weight_decay)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear all gradients."""
        super().zero_grad(set_to_none)
        for source in self._sources:
            source.clear_gradient()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make a step with the gradients of all parameters.

        **Arguments:**

        - `closure`: computes the loss again, as in PyTorch; default none.

        **Returns:** the closure's loss, or `None`.

        **Raises:** `InputError` where the network was redrawn since the optimiser was made.
        """
        if self._network.generation != self._generation:
            raise InputError("the network was drawn anew: make another optimiser for it")
        if any(self.param_groups[0].get(name) for name in ("nesterov", "maximize", "dampening")):
            raise InputError("nesterov, maximize and dampening are not supported: leave them as they are")
        loss = super().step(closure)
        for source in self._sources:
            if any(weight.gradient or _real_gradient(weight) is not None for weight in source.parts()):
                for weight in source.all_parts():
                    if weight.real is not None:
                        self._step_real(weight, weight.real)
                    else:
                        self._step_unseen(weight)
            elif source.data is not None and source.data.grad is not None and not source.parts():
                self._step_real(source, source.data)
        return loss

    def _step_unseen(self, weight: Weight) -> None:
        """Make the step of a matrix that is known by what it has met."""
        lr, momentum, decay = self._settings()
        weight.version += 1
        initial = decay * weight.initial
        terms = _sum(weight.gradient, 1.0, weight.terms, decay)
        if momentum:
            if weight in self._buffers:
                old_initial, old = self._buffers[weight]
                initial, terms = initial + momentum * old_initial, _sum(terms, 1.0, old, momentum)
            if initial or terms:
                self._buffers[weight] = initial, terms
            else:  # so that a weight that never had a gradient may still be drawn whole
                self._buffers.pop(weight, None)
        weight.initial -= lr * initial
        weight.terms = _sum(weight.terms, 1.0, terms, -lr)

    def _step_real(self, weight: Weight | Source, values: Tensor) -> None:
        """Make the step of a matrix that was drawn whole, or of a parameter that is used as data."""
        lr, momentum, decay = self._settings()
        change = decay * values if values.grad is None else values.grad + decay * values
        if momentum:
            if weight in self._buffers:
                change = change + momentum * self._buffers[weight]
            self._buffers[weight] = change
        values.sub_(change, alpha=lr)

    def _settings(self) -> tuple[float, float, float]:
        """Return learning rate, momentum and weight decay."""
        group = self.param_groups[0]
        return group["lr"], group["momentum"], group["weight_decay"]


def _real_gradient(weight: Weight) -> Tensor | None:
    """Return the gradient of a matrix that was drawn whole."""
    return None if weight.real is None else weight.real.grad


def _sum(first: dict[Pair, float], c: float, second: dict[Pair, float], d: float) -> dict[Pair, float]:
    """Return c·first + d·second, without terms of factor 0."""
    total = {pair: c * value for pair, value in first.items()}
    for pair, value in second.items():
        total[pair] = total.get(pair, 0.0) + d * value
    return {pair: value for pair, value in total.items() if value != 0}
