"""A Gaussian matrix that is used once: products with its first vectors of each side, without any history (theory §7).

The first vectors v = R·Q have images R·G, G normal, so that only the small Gram matrix of v is needed: Q is never
formed. In the backward pass G is drawn again from its address, so that between the passes nothing but v need be kept.
"""

import torch
from torch import Tensor

from .factor import Factor
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
        torch.mm(weights, normals, out=out[:, part])
    return out


def second_images(u: Tensor, factor: Factor, v: Tensor, v_factor: Factor, stream: Stream, v_side: Side) -> Tensor:
    """Return the product of the first vectors of the other side, (m', a), given that v (m, a) has met the matrix.

    With v = R·Q, images C = G of Q, and u = S·P it is u·Cᵀ·Q + S·H·(I − QᵀQ), H normal; all but S·H combines v.

    **Arguments:**

    - `u`: vectors, (m', b); `factor`: theirs.
    - `v`: the vectors that met the matrix first, (m, a); `v_factor`: theirs.
    - `stream`: of the matrix.
    - `v_side`: the side of v.
    """
    side: Side = "left" if v_side == "right" else "right"
    weights = factor.coordinates.to(u.dtype)
    out = torch.empty(len(u), v.shape[1], dtype=u.dtype)
    overlap = torch.zeros(factor.rank, len(v), dtype=u.dtype)  # H·vᵀ
    for part, normals in stream.panels(factor.rank, v.shape[1], side, 0):
        torch.mm(weights, normals, out=out[:, part])
        overlap.addmm_(normals, v[:, part].T)
    known = torch.zeros(len(u), v_factor.rank, dtype=u.dtype)  # u·Gᵀ
    for part, normals in stream.panels(v_factor.rank, u.shape[1], v_side, 0):
        known.addmm_(u[:, part], normals.T)
    precise = v_factor.inverse.dtype
    correction = known.to(precise) - factor.coordinates.to(precise) @ (overlap.to(precise) @ v_factor.inverse.T)
    return out.addmm_((correction @ v_factor.inverse).to(u.dtype), v)
