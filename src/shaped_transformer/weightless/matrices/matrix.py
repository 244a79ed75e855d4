"""Random matrices known only by what they have met: Gaussian and Haar orthogonal, as pure functions (theory §7).

A matrix W (a × b) with N(0, 1) entries, or Haar orthogonal, is described by the directions that it has met from either
side, and their images. A query draws the product with further vectors, exactly in distribution given all earlier
queries. All arrays may have a leading axis of independent samples.

The idea for single matrices is Yue M. Lu's Householder Dice (IEEE Trans. Inf. Theory 67, 2021, arXiv 2101.07464); the
form with bases and ranks is ours.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .factor import factorise, tolerance
from .streams import Side

Draw = Callable[[int], Tensor]
"""Returns k fresh rows of N(0, 1) numbers, (…, k, columns), for images of k new directions."""

PASSES = 4
"""Most passes of re-orthogonalisation; two are enough unless vectors are parallel up to rounding."""


@dataclass(frozen=True)
class Known:
    """Orthonormal directions of one side and their images.

    **Arguments:**

    - `directions`: (…, p, a), orthonormal rows; with a sample axis some rows may be zero.
    - `images`: (…, p, b), the products of these rows with the matrix.
    """

    directions: Tensor
    images: Tensor

    def with_more(self, directions: Tensor, images: Tensor) -> "Known":
        """Return the known directions and further ones."""
        return Known(torch.cat((self.directions, directions), -2), torch.cat((self.images, images), -2))


@dataclass(frozen=True)
class Matrix:
    """What is known of a matrix W (a × b).

    **Arguments:**

    - `left`: directions (…, p, a) and their images Q·W, (…, p, b).
    - `right`: directions (…, q, b) and their images Q·Wᵀ, (…, q, a). Of a Haar matrix W⁻¹ = Wᵀ, so that right
      directions are images of left ones: all are kept in `left`, and `right` stays empty.
    """

    left: Known
    right: Known


def unknown(a: int, b: int, dtype: torch.dtype = torch.float32, samples: tuple[int, ...] = ()) -> Matrix:
    """Return a matrix of which nothing is known yet.

    **Arguments:**

    - `a`, `b`: numbers of rows and columns.
    - `dtype`: float32 (default) or float64.
    - `samples`: leading axes, default none.
    """

    def nothing(width: int) -> Tensor:
        return torch.zeros(*samples, 0, width, dtype=dtype)

    return Matrix(Known(nothing(a), nothing(b)), Known(nothing(b), nothing(a)))


def query_gaussian(matrix: Matrix, side: Side, x: Tensor, draw: Draw) -> tuple[Tensor, Matrix]:
    """Return the product of vectors with a matrix of N(0, 1) entries, and what is known of it then (theory §7).

    **Arguments:**

    - `matrix`: what is known of W (a × b).
    - `side`: `"left"` for x·W, `"right"` for x·Wᵀ.
    - `x`: vectors, (…, m, a) or (…, m, b).
    - `draw`: gives k rows of normals, as long as the product; called once, and only for a new direction.

    **Returns:** the product, (…, m, b) or (…, m, a), and the new state.

    **Raises:** `InputError` where x is not finite.
    """
    own, other = (matrix.left, matrix.right) if side == "left" else (matrix.right, matrix.left)
    old, new, directions = split(own.directions, x)
    product = old @ own.images
    if directions.shape[-2]:
        images = draw(directions.shape[-2]) * _present(directions)
        images = images + (directions @ other.images.mT - images @ other.directions.mT) @ other.directions
        product, own = product + new @ images, own.with_more(directions, images)
    return product, Matrix(own, other) if side == "left" else Matrix(other, own)


def query_haar(matrix: Matrix, side: Side, x: Tensor, draw: Draw) -> tuple[Tensor, Matrix]:
    """Return the product of vectors with a Haar orthogonal matrix (n × n), and what is known of it then (theory §7).

    The image of a new direction is uniform on the unit sphere of the complement of all known images.

    **Arguments, returns, raises:** as `query_gaussian`, with a = b = n.
    """
    known = matrix.left if side == "left" else Known(matrix.left.images, matrix.left.directions)
    old, new, directions = split(known.directions, x)
    product = old @ known.images
    if directions.shape[-2]:
        _, _, images = split(known.images, draw(directions.shape[-2]))
        images = images * _present(directions)
        product, known = product + new @ images, known.with_more(directions, images)
    left = known if side == "left" else Known(known.images, known.directions)
    return product, Matrix(left, matrix.right)


def split(basis: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split vectors into their part in a known span and new orthonormal directions: x = old·basis + new·directions.

    The new directions are orthogonalised against the basis and each other until rounding is all that is left.

    **Arguments:**

    - `basis`: (…, p, a), orthonormal rows.
    - `x`: vectors, (…, m, a).

    **Returns:** `old` (…, m, p), `new` (…, m, k), `directions` (…, k, a), k ≤ m the rank of what is new. With a sample
    axis, k is the largest rank, and directions that a sample lacks are zero.

    **Raises:** `InputError` where x is not finite.
    """
    lengths = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64) if basis.shape[-2] else None
    old = x @ basis.mT
    rest = x - old @ basis
    more = rest @ basis.mT
    old, rest = old + more, rest - more @ basis
    directions = _orthonormal(rest, lengths)
    for _ in range(PASSES if directions.shape[-2] else 0):
        directions = directions - (directions @ basis.mT) @ basis
        products = directions.double() @ directions.double().mT
        wanted = torch.diag_embed(_present(directions)[..., 0].double())
        triangle = torch.linalg.cholesky(products + torch.diag_embed(1 - wanted.diagonal(dim1=-2, dim2=-1)))
        directions = torch.linalg.solve_triangular(triangle, directions.double(), upper=False).to(x.dtype)
        if (products - wanted).abs().max() < tolerance(x.dtype):
            break
    return old, rest @ directions.mT, directions


def _orthonormal(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return nearly orthonormal rows that span x, (…, k, a), without directions short beside `lengths`, (…, m)."""
    if x.ndim > 2:
        scales = [None] * math.prod(x.shape[:-2]) if lengths is None else lengths.flatten(0, -2)
        parts = [_orthonormal(one, scale) for one, scale in zip(x.flatten(0, -3), scales, strict=True)]
        rank = max(part.shape[0] for part in parts)
        padded = [torch.nn.functional.pad(part, (0, 0, 0, rank - part.shape[0])) for part in parts]
        return torch.stack(padded).reshape(*x.shape[:-2], rank, x.shape[-1])
    factor = factorise(x, tolerance(x.dtype), lengths)
    return (factor.inverse.double() @ x.double()).to(x.dtype)


def _present(directions: Tensor) -> Tensor:
    """Return 1 for unit rows and 0 for rows of zeros, (…, k, 1)."""
    return (directions.square().sum(-1, keepdim=True) > 0.25).to(directions.dtype)
