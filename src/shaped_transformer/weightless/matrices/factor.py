"""Factors of a few long vectors: an orthonormal basis of their span, kept as a small triangle."""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import qr
from scipy.linalg.lapack import dpstrf
from threadpoolctl import ThreadpoolController
from torch import Tensor

from ...errors import InputError

LARGE = 0.1
"""Sine of the angle between a vector and the span of others above which a Gram matrix in float32 is precise enough."""

FAR = 1e12
"""Length of vectors in float32 above which, or below the inverse of which, they are scaled before a Gram matrix."""

MODERATE = 1e-4
"""Sine above which a Gram matrix in float64 is precise enough without pivots."""

ROWS = 256
"""Number of rows of a Gram matrix, or of coordinates, that are multiplied at a time."""

COLUMNS = 4096
"""Number of coordinates that are turned to float64 at a time."""


class NotFiniteError(InputError):
    """Vectors with infinite or undefined entries."""


@dataclass(frozen=True)
class Factor:
    """Vectors x (m, a) = coordinates · Q with orthonormal rows Q (k, a), k their numerical rank; Q is not formed.

    **Arguments:**

    - `coordinates`: (m, k); of the precision of x where all angles are large, and else float64.
    - `pivots`: (k,), the vectors that span the others: their coordinates are a lower triangle.
    """

    coordinates: Tensor
    pivots: Tensor

    @property
    def rank(self) -> int:
        return self.coordinates.shape[-1]

    @functools.cached_property
    def blocks(self) -> tuple[tuple[slice, int], ...]:
        """Rows of the coordinates, some at a time, and the number of leading columns beyond which these rows are 0."""
        count = len(self.coordinates)
        ascending = count > ROWS and bool((self.pivots[1:] > self.pivots[:-1]).all())
        return tuple(
            (slice(start, stop), int((self.pivots < stop).sum()) if ascending else self.rank)
            for start, stop in _blocks(count)
        )

    @functools.cached_property
    def inverse(self) -> Tensor:
        """The matrix (k, m) with Q = inverse · x. Its columns of vectors that depend on the others are zero."""
        triangle = self.coordinates[self.pivots].double()
        identity = torch.eye(self.rank, dtype=torch.float64)
        out = torch.zeros(self.rank, len(self.coordinates), dtype=self.coordinates.dtype)
        out[:, self.pivots] = torch.linalg.solve_triangular(triangle, identity, upper=False).to(out.dtype)
        return out


def tolerance(dtype: torch.dtype) -> float:
    """Return the length, relative to its vector, below which a new direction is taken for a rounding error."""
    return 16 * torch.finfo(dtype).eps


def gram(x: Tensor, y: Tensor) -> Tensor:
    """Return x·yᵀ in float64, (m, m'), for x (m, a) and y (m', a)."""
    total = torch.zeros(len(x), len(y), dtype=torch.float64)
    for one, other in zip(x.split(COLUMNS, 1), y.split(COLUMNS, 1), strict=True):
        total.addmm_(one.to(torch.float64), other.to(torch.float64).T)
    return total


def _blocks(count: int) -> list[tuple[int, int]]:
    """Return the first and the last row, not included, of blocks of `ROWS` rows."""
    return [(start, min(start + ROWS, count)) for start in range(0, count, ROWS)]


def _symmetric(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x·xᵀ, (m, m), of which little more than the lower triangle is computed."""
    if len(x) <= ROWS and x.dtype == dtype:
        return x @ x.T
    out = torch.zeros(len(x), len(x), dtype=dtype)
    blocks = _blocks(len(x))
    for part in x.split(COLUMNS, 1):
        some = part.to(dtype)
        for start, stop in blocks:
            out[start:stop, :stop].addmm_(some[start:stop], some[:stop].T)
    for start, stop in blocks:
        out[:start, start:stop] = out[start:stop, :start].T
    return out


def multiply(factor: Factor, weights: Tensor, x: Tensor, out: Tensor) -> None:
    """Write the product of the coordinates, as `weights` (m, k) in the precision of x, with x (k, a) to `out`."""
    if len(weights) <= ROWS:
        torch.mm(weights, x, out=out)
        return
    for rows, count in factor.blocks:
        torch.mm(weights[rows, :count], x[:count], out=out[rows])


def product_norm(one: Factor, other: Factor) -> float:
    """Return ‖xᵀ·y‖_F of as many vectors x (m, a) as y (m, b), from their factors."""
    dtype = torch.promote_types(one.coordinates.dtype, other.coordinates.dtype)
    left, right = one.coordinates.to(dtype), other.coordinates.to(dtype)
    if len(left) <= ROWS:
        return float(torch.linalg.vector_norm(left.T @ right, dtype=torch.float64))
    total = torch.zeros(one.rank, other.rank, dtype=dtype)
    for (rows, count), (_, other_count) in zip(one.blocks, other.blocks, strict=True):
        total[:count, :other_count].addmm_(left[rows, :count].T, right[rows, :other_count])
    return float(torch.linalg.vector_norm(total, dtype=torch.float64))


def factorise(x: Tensor, least: float, lengths: Tensor | None = None) -> Factor:
    """Return the factor of vectors.

    A Gram matrix loses the small angles between vectors: in float32 below 0.1, in float64 below 1e-7. So these methods
    share the work: for vectors in float32 a Cholesky decomposition of the Gram matrix in float32 where all angles are
    large, of that in float64 where they are moderate, and with pivots where they are small; for vectors in float64 a QR
    decomposition with pivots.

    **Arguments:**

    - `x`: vectors, (m, a), float32 or float64.
    - `least`: length of a direction, relative to its vector's, below which it is dropped.
    - `lengths`: (m,), the lengths to which directions are compared; default those of x.

    **Raises:** `NotFiniteError` where x is not finite.
    """
    products = _symmetric(x, x.dtype).double() if x.dtype == torch.float32 else None
    own = torch.linalg.vector_norm(x, dim=1) if products is None else products.diagonal().sqrt()
    if products is not None and not bool((usual := _usual(own)).all()):
        own[~usual] = torch.linalg.vector_norm(x[~usual], dim=1, dtype=torch.float64)
    if not bool(own.isfinite().all()):
        raise NotFiniteError("vectors with infinite or undefined entries: the model overflows there")
    if products is not None and not bool((_usual(own) | (own == 0)).all()):
        unit = torch.where(own > 0, own, torch.ones_like(own))
        factor = factorise((x / unit[:, None]).to(x.dtype), least, None if lengths is None else lengths / unit)
        return Factor(factor.coordinates.double() * unit[:, None], factor.pivots)
    scale = own if lengths is None else lengths.to(torch.float64)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    if products is None:
        lower, pivots = _qr(x / scale[:, None], least)
    elif easy := _cholesky(products.div_(scale[:, None]).div_(scale), LARGE):
        return Factor(easy[0].mul_(scale[:, None]).to(x.dtype), easy[1])
    else:
        products = _symmetric(x, torch.float64).div_(scale[:, None]).div_(scale)
        lower, pivots = _cholesky(products, MODERATE) or _pivoted(products, least)
    return Factor(lower * scale[:, None], pivots)


def _usual(lengths: Tensor) -> Tensor:
    """Whether vectors have a length whose square float32 can hold; gradients of deep networks may vanish below it."""
    return (lengths > 1 / FAR) & (lengths < FAR)


def _cholesky(products: Tensor, sine: float) -> tuple[Tensor, Tensor] | None:
    """Return L (m, k), L·Lᵀ the inner products, and the k vectors not of length 0.

    `None` if a vector may have a smaller sine than `sine` with the span of those before.
    """
    lengths = products.diagonal().clone()
    products.diagonal()[lengths == 0] = 1
    lower, failed = torch.linalg.cholesky_ex(products)
    products.diagonal()[lengths == 0] = 0
    if int(failed) or float(lower.diagonal().min()) < sine:
        return None
    nonzero = lengths.nonzero()[:, 0]
    if len(nonzero) == len(products):
        return lower, nonzero
    return lower[:, nonzero] * (lengths > 0)[:, None], nonzero


def _pivoted(products: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Return L (m, k), L·Lᵀ the inner products up to rounding, and k vectors that span the others, in their order."""
    if float(products.diagonal().max()) <= least**2:
        return products[:, :0], torch.arange(0)
    with _blas().limit(limits=1):  # SciPy's threads would keep PyTorch's from their cores for a while
        lower, pivots, rank, _ = dpstrf(products.numpy(), tol=least**2, lower=1)
    return _in_order(lower, pivots - 1, rank)


def _qr(x: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Return L (m, k) and k vectors that span the others, as `_pivoted` does from their inner products."""
    with _blas().limit(limits=1):
        upper, pivots = qr(x.numpy().T, mode="r", pivoting=True)
    signs = np.where(upper.diagonal() < 0, -1.0, 1.0)
    rank = int((np.abs(upper.diagonal()) > least).sum())
    return _in_order((upper[: len(signs)] * signs[:, None]).T, pivots, rank)


def _in_order(lower: NDArray[np.float64], pivots: NDArray[np.integer], rank: int) -> tuple[Tensor, Tensor]:
    """Return the rows of a decomposition with pivots in the order of the vectors, and the pivots of full rank."""
    order = torch.from_numpy(pivots.astype(np.int64))
    out = torch.zeros(len(lower), rank, dtype=torch.float64)
    out[order] = torch.from_numpy(np.tril(lower)[:, :rank])
    return out, order[:rank]


@functools.cache
def _blas() -> ThreadpoolController:
    """Return what limits the threads of SciPy's linear algebra."""
    return ThreadpoolController()
