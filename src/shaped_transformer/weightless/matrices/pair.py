"""A term of a gradient, known by its factors, and sums of such terms."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...errors import InputError
from .knowledge import CHANGED
from .streams import Side
from .vectors import Units, Vectors, add_combination, inner


@dataclass(frozen=True, eq=False)
class Pair:
    """A term uᵀ·v of a gradient, never formed.

    **Arguments:**

    - `left`, `right`: vectors u, (m, a), and v, (m, b).
    - `side`: on which of them the matrix acted in the forward pass; the others are gradients. `None` for other terms.
    - `image`: Frobenius norm of what the matrix made of them.
    """

    left: Vectors
    right: Vectors
    side: Side | None = None
    image: float = 0.0
    versions: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Note PyTorch's count of changes in place."""
        object.__setattr__(self, "versions", self._versions())

    def check(self, name: str) -> None:
        """Check that the vectors, which belong to the model, are as they were.

        **Raises:** `InputError` with the parameter's name otherwise.
        """
        if self._versions() != self.versions:
            raise InputError(f"{name}: {CHANGED}")

    def _versions(self) -> tuple[int, ...]:
        """Return PyTorch's counts of changes in place."""
        return tuple(one._version for one in (self.left, self.right) if isinstance(one, Tensor))

    def __len__(self) -> int:
        """Return the number of vectors on either side."""
        return len(self.left.rows) if isinstance(self.left, Units) else len(self.left)

    def towards(self, side: Side) -> tuple[Vectors, Vectors]:
        """Return the vectors of a side, and those of the other one."""
        return (self.left, self.right) if side == "left" else (self.right, self.left)


Terms = Mapping[Pair, float]
"""A sum Σ c·uᵀv of terms with their factors."""


def add_product(out: Tensor, side: Side, x: Vectors, terms: Terms, name: str) -> None:
    """Add the product of vectors with a sum of terms to `out`.

    **Raises:** `InputError` with the parameter's name where the vectors of a term were changed in place.
    """
    for pair, coefficient in terms.items():
        pair.check(name)
        near, far = pair.towards(side)
        add_combination(out, coefficient * inner(x, near, out.dtype), far)


def norm_squared(terms: Mapping[Pair, float]) -> float:
    """Return ‖Σ c·uᵀv‖²_F over pairs with factors c, from inner products, the cross terms of pairs included."""
    total, pairs = 0.0, list(terms.items())
    for i, (first, c) in enumerate(pairs):
        for j, (second, d) in enumerate(pairs[: i + 1]):
            left = inner(first.left, second.left, torch.float64)
            right = inner(first.right, second.right, torch.float64)
            total += (1 if i == j else 2) * c * d * float((left.double() * right.double()).sum())
    return total
