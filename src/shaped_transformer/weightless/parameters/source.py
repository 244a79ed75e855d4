"""The values behind a weightless parameter: a matrix, a stack of matrices, or a small table drawn for real."""

import math

import torch
from torch import Tensor

from ...errors import InputError
from ..matrices.ledger import Ledger
from ..matrices.weight import Entries, Weight
from ..recording.law import Law

DATA_ENTRIES = 2**22
"""Most entries of a parameter that is drawn for real because the model uses its values as data, such as positions."""


class Source:
    """What stands behind one parameter.

    **Arguments:**

    - `name`: of the parameter.
    - `shape`: of the parameter.
    - `law`: the distribution of its entries.
    - `ledger`: of the network.
    - `twin`: another parameter with the same values at initialisation, as copies of a layer have; default none.
    """

    def __init__(self, name: str, shape: torch.Size, law: Law, ledger: Ledger, *, twin: "Source | None" = None) -> None:
        self.name, self.shape, self.law, self.ledger, self._twin = name, shape, law, ledger, twin
        self.weights: dict[int | None, Weight] = {}
        self.reset()

    def reset(self) -> None:
        """Forget everything: another parameter of the same distribution, untrained."""
        for weight in self.weights.values():
            weight.version += 1
        self.weights = {}
        self.split: int | None = None  # number of axes that make the rows of the matrix; 0 for a stack of matrices
        self.data: Tensor | None = None

    def matrix(self, split: int = 1) -> Weight:
        """Return the parameter as one matrix, its first `split` axes being the rows."""
        self._use_as(split)
        if None not in self.weights:
            a, b = math.prod(self.shape[:split]), math.prod(self.shape[split:])
            scales = self._scales()
            if len(self.shape) > 2:
                rows = scales[0] if split == 1 else None
                if any(scale is not None for scale in scales[1 if split == 1 else 0 :]):
                    raise InputError(
                        f"{self.name}: its initialisation scales parts of its axes, which is not supported"
                    )
            else:
                rows = scales[0]
            columns = scales[1] if len(self.shape) == 2 else None
            twin = None if self._twin is None else self._twin.matrix(split)
            self.weights[None] = Weight(self.name, (a, b), self._entries(1.0, rows, columns), self.ledger, twin)
        return self.weights[None]

    def stacked(self, index: int) -> Weight:
        """Return one matrix of a stack, (a, b), the parameter being (E, a, b)."""
        if len(self.shape) != 3:
            raise InputError(
                f"{self.name} {tuple(self.shape)}: only a stack of matrices, (experts, a, b), can be indexed by number"
            )
        self._use_as(0)
        if index not in self.weights:
            stack, rows, columns = self._scales()
            factor = 1.0 if stack is None else float(stack[index])
            shape = (self.shape[1], self.shape[2])
            name = f"{self.name}[{index}]"
            twin = None if self._twin is None else self._twin.stacked(index)
            self.weights[index] = Weight(name, shape, self._entries(factor, rows, columns), self.ledger, twin)
        return self.weights[index]

    def values(self) -> Tensor:
        """Return the parameter drawn for real, for a model that uses its values as data, such as positions.

        **Raises:** `InputError` where it is large, or was used as a matrix before.
        """
        if self.data is None:
            seen = [weight for weight in self.parts() if weight.real is None]
            used = any(weight.trained or not weight.known.only_rows for weight in seen)
            if used or math.prod(self.shape) > DATA_ENTRIES or (self.weights and len(self.shape) > 2):
                raise InputError(self.refusal("its values as data"))
            if len(self.shape) == 2:
                weight = self.matrix()
                if weight.real is None:
                    self._reserve()
                self.data = weight.draw() if weight.real is None else weight.real
            else:
                self._reserve()
                normals = (
                    self.ledger.stream((self._twin or self).name).normals(tuple(self.shape), "whole") * self.law.std
                )
                for axis, scale in enumerate(self._scales()):
                    if scale is not None:
                        normals *= scale.to(normals.dtype).view(-1, *(1,) * (len(self.shape) - axis - 1))
                self.data = normals.requires_grad_()
        return self.data

    def refusal(self, what: str) -> str:
        """Return the message that refuses something which needs the values."""
        return (
            f"the model asks for {what} of the parameter {self.name} {tuple(self.shape)}, which is never drawn: it can "
            "only be multiplied with vectors, as in linear layers, embeddings, matmul, einsum of two factors and "
            "convolutions in one or two dimensions; run such a model with real weights"
        )

    def parts(self) -> list[Weight]:
        """Return the matrices that were used so far."""
        return list(self.weights.values())

    def clear_gradient(self) -> None:
        """Set the gradient to zero."""
        for weight in self.parts():
            weight.clear_gradient()
        if self.data is not None:
            self.data.grad = None

    def scale_gradient(self, factor: float) -> None:
        """Multiply the gradient by a number."""
        for weight in self.parts():
            weight.scale_gradient(factor)
        if self.data is not None and not self.weights and self.data.grad is not None:
            self.data.grad.mul_(factor)

    def all_parts(self) -> list[Weight]:
        """Return all matrices of the parameter, those of a stack that were not used yet included."""
        return [self.stacked(index) for index in range(self.shape[0])] if self.split == 0 else self.parts()

    def _reserve(self) -> None:
        """Reserve memory for the whole parameter."""
        size = math.prod(self.shape) * self.ledger.dtype.itemsize
        if not self.ledger.reserve(size):
            raise InputError(
                f"{self.name} {tuple(self.shape)} must be drawn for real, and does not fit into the memory limit: give "
                "a larger memory="
            )

    def _use_as(self, split: int) -> None:
        """Note how the parameter is used; each parameter can be used in one way."""
        if self.data is not None and len(self.shape) > 2:
            raise InputError(
                f"{self.name}: the model both uses its values as data and multiplies with it: use it in one way only"
            )
        if self.split is not None and self.split != split:
            raise InputError(f"{self.name}: the model uses it as matrices of different shapes, which is not supported")
        self.split = split

    def _entries(self, factor: float, rows: Tensor | None, columns: Tensor | None) -> Entries:
        """Return the distribution of one matrix."""
        return Entries(self.law.std * factor, self.law.kind == "orthogonal", rows, columns)

    def _scales(self) -> tuple[Tensor | None, ...]:
        """Return the factors along each axis."""
        return (*self.law.scales, *(None,) * (len(self.shape) - len(self.law.scales)))
