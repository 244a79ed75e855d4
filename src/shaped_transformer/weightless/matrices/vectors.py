"""Vectors that meet a matrix: dense ones, and unit vectors of a look-up, which are kept as row numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .factor import gram


@dataclass(frozen=True)
class Units:
    """Distinct unit vectors e_i of a space of `width` coordinates, by their numbers i.

    **Arguments:**

    - `rows`: (m,), distinct whole numbers.
    - `width`: a, the number of coordinates.
    """

    rows: Tensor
    width: int

    def dense(self, dtype: torch.dtype) -> Tensor:
        """Return the vectors in full, (m, a)."""
        out = torch.zeros(len(self.rows), self.width, dtype=dtype)
        out[torch.arange(len(self.rows)), self.rows] = 1
        return out


Vectors = Tensor | Units
"""Rows of vectors, (m, a)."""


def inner(x: Vectors, y: Vectors, dtype: torch.dtype) -> Tensor:
    """Return the inner products x·yᵀ, (m, m'); `dtype` float64 for those of float32 vectors that may be tiny."""
    if isinstance(x, Units) and isinstance(y, Units):
        return (x.rows[:, None] == y.rows).to(dtype)
    if isinstance(x, Units):
        return y.T[x.rows] if isinstance(y, Tensor) else inner(y, x, dtype).T
    if isinstance(y, Units):
        return x[:, y.rows]
    return x @ y.T if x.dtype == dtype else gram(x, y)


def add_combination(out: Tensor, weights: Tensor, x: Vectors) -> None:
    """Add weights · x to `out`, (j, a), for weights (j, m)."""
    if isinstance(x, Units):
        out.index_add_(1, x.rows, weights)
    else:
        out.addmm_(weights, x)


def same(x: Vectors, y: Vectors) -> bool:
    """Whether two sets of vectors are equal, number by number."""
    if isinstance(x, Units) or isinstance(y, Units):
        return isinstance(x, Units) and isinstance(y, Units) and torch.equal(x.rows, y.rows)
    if x.shape != y.shape:
        return False
    return (x.data_ptr() == y.data_ptr() and x.stride() == y.stride()) or torch.equal(x, y)
