"""What a step of an optimiser changes in each weight, beside the weight, in Frobenius norm and in effect."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..weightless.matrices.adam import AdamSum
from ..weightless.matrices.pair import Pair, add_product, norm_squared
from ..weightless.matrices.streams import Side
from ..weightless.matrices.vectors import Units, Vectors
from ..weightless.matrices.weight import Weight
from ..weightless.parameters.tensor import WeightlessTensor


@dataclass(frozen=True)
class Update:
    """The update of a weight in one step, without weight decay.

    **Arguments:**

    - `norm`: ‖ΔW‖ over the norm of W at initialisation, in Frobenius norms; `None` where W was 0.
    - `effect`: ‖x·ΔW‖/‖x·W‖ for the vectors x that met W in this step; `None` where this is not known. A row that is
      looked up several times counts once.
    """

    norm: float | None
    effect: float | None


def weightless_updates(model: nn.Module) -> dict[str, Update]:
    """Return the last updates of the parameters without values that have a gradient, by name."""
    found = {}
    for name, parameter in model.named_parameters():
        if isinstance(parameter, WeightlessTensor):
            parts = [weight for weight in parameter.source.parts() if weight.real is None]
            if any(weight.gradient for weight in parts):
                found[name] = _of_parts([weight for weight in parts if weight.last is not None])
    return found


def _of_parts(parts: list[Weight]) -> Update:
    """Return the update of a matrix, or of a stack of matrices."""
    change = size = met = image = 0.0
    for weight in parts:
        by_side: dict[Side, list[Pair]] = {}
        for pair in weight.gradient:
            if pair.side is not None:
                by_side.setdefault(pair.side, []).append(pair)
        norm = None
        for side, pairs in by_side.items():
            product, norm = _last(weight, side, _together([pair.towards(side)[0] for pair in pairs], weight))
            met += _norm(product) ** 2
            image += sum(pair.image**2 for pair in pairs)
        if norm is None:
            norm = _last(weight, "left", torch.zeros(0, weight.shape[0], dtype=weight.ledger.dtype))[1]
        change += norm**2
        size += initial_norm(weight) ** 2
    return Update(math.sqrt(change / size) if size else None, math.sqrt(met / image) if image else None)


def _together(vectors: list[Vectors], weight: Weight) -> Vectors:
    """Return vectors as one set."""
    if len(vectors) == 1:
        return vectors[0]
    return torch.cat([one.dense(weight.ledger.dtype) if isinstance(one, Units) else one for one in vectors])


def _last(weight: Weight, side: Side, x: Vectors) -> tuple[Tensor, float]:
    """Return the product of vectors with the last update, and its norm."""
    if isinstance(weight.last, AdamSum):
        return weight.last.last(side, x)
    terms = weight.last or {}
    count = len(x.rows) if isinstance(x, Units) else len(x)
    out = torch.zeros(count, weight.shape[side == "left"], dtype=weight.ledger.dtype)
    add_product(out, side, x, terms, weight.name)
    return out, math.sqrt(max(norm_squared(terms), 0.0))


def initial_norm(weight: Weight) -> float:
    """Return the root mean square of ‖W‖_F at initialisation, which hardly scatters."""
    a, b = weight.shape
    entries, scale = weight.entries, 1.0
    for factors in (entries.rows, entries.columns):
        if factors is not None:
            scale *= float(factors.double().square().mean())
    return entries.std * math.sqrt(scale * (min(a, b) if entries.orthogonal else a * b))


@dataclass(frozen=True)
class Met:
    """What a module with a real weight met: its product as a function of input and weight, the input, ‖x·W‖."""

    product: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor
    image: float


class RealUpdates:
    """The updates of parameters with values, from what they were before a step.

    **Arguments:**

    - `model`: at initialisation, with real parameters, some or all.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._sizes = {name: _norm(p.detach()) for name, p in self._real()}
        self._met: dict[str, list[Met]] = {}
        self._before: dict[int, Tensor] = {}
        self._descents: dict[int, Tensor] = {}
        self._buffers: dict[int, Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record what linear layers and embeddings with real weights meet while the context lasts."""
        self._met, handles = {}, []
        names = {id(p): name for name, p in self.model.named_parameters() if not isinstance(p, WeightlessTensor)}
        for module in self.model.modules():
            name, product = names.get(id(getattr(module, "weight", None))), product_of(module)
            if name is not None and product is not None:
                handles.append(module.register_forward_hook(self._hook(name, product)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str, product: Callable[[Tensor, Tensor], Tensor]) -> Any:
        """Return a hook that records what a module meets."""

        def record(module: Any, args: tuple[Any, ...], output: Any) -> None:
            inputs, image = args[0].detach(), output.detach()
            if isinstance(module, nn.Embedding):
                inputs = inputs.unique()  # as rows that are looked up twice meet a weightless table once
                image = product(inputs, module.weight.detach())
            elif getattr(module, "bias", None) is not None:
                image = image - module.bias.detach()
            self._met.setdefault(name, []).append(Met(product, inputs, _norm(image)))

        return record

    def begin(self, optimisers: Sequence[torch.optim.Optimizer]) -> None:
        """Note what the step of optimisers starts from: parameters that have a gradient, after weight decay."""
        for one in optimisers:
            for group in one.param_groups:
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    if isinstance(one, torch.optim.SGD):  # whose decay is part of the gradient
                        self._descents[id(p)] = self._descent(p, group)
                    apart = group.get("decoupled_weight_decay", True)
                    kept = 1 - group["lr"] * group.get("weight_decay", 0.0) if apart else 1.0
                    self._before[id(p)] = kept * p.detach()

    def _descent(self, p: Tensor, group: Mapping[str, Any]) -> Tensor:
        """Return the step of gradient descent with the gradients alone."""
        momentum, gradient = group["momentum"], cast(Tensor, p.grad).detach()
        if momentum:
            old = self._buffers.get(id(p))
            buffer = gradient.clone() if old is None else (1 - group["dampening"]) * gradient + momentum * old
            self._buffers[id(p)] = buffer
            gradient = gradient + momentum * buffer if group["nesterov"] else buffer
        return -group["lr"] * gradient

    def end(self) -> dict[str, Update]:
        """Return the updates since `begin`."""
        found = {}
        for name, parameter in self._real():
            if id(parameter) in self._before:
                change = self._descents.get(id(parameter), parameter.detach() - self._before[id(parameter)])
                size, met = self._sizes[name], self._met.get(name, [])
                image = math.hypot(*(one.image for one in met)) if met else 0.0
                moved = math.hypot(*(_norm(one.product(one.inputs, change)) for one in met)) if image else 0.0
                found[name] = Update(_norm(change) / size if size else None, moved / image if image else None)
        self._before, self._descents = {}, {}
        return found

    def _real(self) -> list[tuple[str, Tensor]]:
        """Return the real parameters by name."""
        return [(name, p) for name, p in self.model.named_parameters() if not isinstance(p, WeightlessTensor)]


def product_of(module: nn.Module) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return how a module multiplies with its weight, (input, weight) → output; `None` for other modules."""
    if isinstance(module, nn.Linear):
        return lambda x, weight: x @ weight.T
    if isinstance(module, nn.Embedding):
        return lambda x, weight: weight[x]
    return (lambda x, weight: x @ weight) if type(module).__name__ == "Conv1D" else None


def _norm(x: Tensor) -> float:
    """Return the Frobenius norm."""
    return float(torch.linalg.vector_norm(x, dtype=torch.float64))
