"""A Gaussian matrix that is used once: products with its first vectors of each side, without any history (theory §7).

The first vectors v = R·Q have images R·G, G normal, so that only the small Gram matrix of v is needed: Q is never
formed. In the backward pass G is drawn again from its address, so that between the passes nothing but v need be kept.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .factor import Factor, multiply
from .streams import Side, Stream


def first_images(factor: Factor, columns: int, stream: Stream, side: Side) -> Tensor:
    """Return the product of the first vectors with the matrix, (m, columns).

    **Arguments:**

    - `factor`: of the vectors.
    - `columns`: length of the images.
    - `stream`: of the matrix.
    - `side`: the vectors' side.
    """
    weights = factor.coordinates.to(stream.dtype)
    out = torch.empty(len(weights), columns, dtype=stream.dtype)
    for part, normals in stream.panels(factor.rank, columns, side, 0):
        multiply(factor, weights, normals, out[:, part])
    return out


@dataclass(frozen=True)
class Part:
    """The part of second images that each matrix has of its own; parts of matrices that met the same v may be added.

    **Arguments:**

    - `fresh`: S·H, (m', a).
    - `known`: u·Gᵀ, (m', k).
    """

    fresh: Tensor
    known: Tensor

    def add(self, other: "Part") -> None:
        """Add another part in place."""
        self.fresh.add_(other.fresh)
        self.known.add_(other.known)

    def scale(self, factor: float) -> None:
        """Multiply in place."""
        self.fresh.mul_(factor)
        self.known.mul_(factor)


def own_part(u: Tensor, factor: Factor, rank: int, length: int, stream: Stream, v_side: Side) -> Part:
    """Return what `second_images` needs of the matrix: products with its normals.

    **Arguments:**

    - `u`: vectors, (m', b); `factor`: theirs.
    - `rank`, `length`: k and a, of the vectors v (m, a) that met the matrix first.
    - `stream`: of the matrix.
    - `v_side`: the side of v.
    """
    side: Side = "left" if v_side == "right" else "right"
    weights = factor.coordinates.to(u.dtype)
    fresh = torch.empty(len(u), length, dtype=u.dtype)
    for part, normals in stream.panels(factor.rank, length, side, 0):
        multiply(factor, weights, normals, fresh[:, part])
    known = torch.zeros(len(u), rank, dtype=u.dtype)
    for part, normals in stream.panels(rank, u.shape[1], v_side, 0):
        known.addmm_(u[:, part], normals.T)
    return Part(fresh, known)


def second_images(part: Part, v: Tensor, v_factor: Factor) -> Tensor:
    """Return the product of the first vectors u of the other side, (m', a), given that v (m, a) has met the matrix.

    With v = R·Q, images C = G of Q, and u = S·P it is u·Cᵀ·Q + S·H·(I − QᵀQ), H normal; all but S·H combines v.

    **Arguments:**

    - `part`: the matrix's own; it is overwritten.
    - `v`: the vectors that met the matrix first, (m, a); `v_factor`: theirs.
    """
    precise = v_factor.inverse.dtype
    overlap = (part.fresh @ v.T).to(precise)
    correction = part.known.to(precise).addmm_(overlap, v_factor.inverse.T, alpha=-1)
    return part.fresh.addmm_((correction @ v_factor.inverse).to(v.dtype), v)
