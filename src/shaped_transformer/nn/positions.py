"""Rotary positions: queries and keys turned by angles that grow with the position (RoFormer, arXiv 2104.09864)."""

import torch
from torch import Tensor

BASE = 10_000.0
"""Ratio of the longest to the shortest wavelength, as in the paper."""


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Turn the coordinates i and i + k/2 of each head's vectors by position·BASE^(−2i/k).

    Products of queries and keys then depend on the difference of positions only; norms stay, and so does the law of
    the covariance at initialisation, up to the angles between tokens.

    **Arguments:** `x`: (batch, H, T, k), k even; `positions`: (T,) or (batch, T).
    """
    half = x.shape[-1] // 2
    frequencies = BASE ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = positions[..., None].float() * frequencies
    if angles.dim() == 3:
        angles = angles[:, None]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
