"""Positions of tokens: rotary positions (RoFormer, arXiv 2104.09864), and their shape beside heads."""

import torch
from torch import Tensor

BASE = 10_000.0
"""Ratio of the longest to the shortest wavelength, as in the paper."""


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Rotate the coordinates i and i + k/2 of each head's vectors by the angle position·BASE^(−2i/k).

    Products of queries and keys then depend on differences of positions only. Norms do not change. Nor does the
    distribution of the covariance at initialisation, up to the angles between tokens.

    **Arguments:**

    - `x`: (batch, H, T, k), k even.
    - `positions`: (T,) or (batch, T).

    **Returns:** the rotated vectors, in the shape and dtype of `x`.
    """
    half = x.shape[-1] // 2
    frequencies = BASE ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = positions[..., None].float() * frequencies
    if angles.dim() == 3:
        angles = angles[:, None]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def align_positions(positions: Tensor, like: Tensor) -> Tensor:
    """Return positions (Tq,) or (batch, Tq) in a shape that broadcasts over (batch, …, H, Tq).

    **Arguments:**

    - `positions`: the positions of the queries.
    - `like`: queries, keys or values, (batch, …, H, T, ·), whose number of dimensions counts.
    """
    if positions.dim() == 1:
        return positions
    return positions.reshape(positions.shape[0], *(1 for _ in range(like.dim() - 3)), positions.shape[1])
