"""The randomness of one block of samples: normals, Bartlett factors and random weights, from one seeded stream."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


WEIGHTS = 2**21
"""Weights of real networks held at a time: 16 megabytes."""


class Draws:
    """A stream of random matrices for a block of `size` samples.

    **Arguments:**

    - `seed`: the user's seed; `view` and `block` (small integers) make the stream independent of all others.
    - `size`: samples in the block. Every draw is for the whole block, so that a stream never depends on how many of
      them a caller keeps.
    - `dtype`: of the normals, float64 by default; float32 halves the memory of real networks.
    """

    def __init__(self, seed: int, view: int, block: int, size: int, dtype: str = "float64") -> None:
        key = np.random.SeedSequence(seed, spawn_key=(view, block))
        self._generator = np.random.Generator(np.random.SFC64(key))
        self.size = size
        self.dtype = np.dtype(dtype)

    def normal(self, rows: int, columns: int) -> Array:
        """Return independent N(0, 1) entries, (size, rows, columns)."""
        return self._generator.standard_normal((self.size, rows, columns), dtype=self.dtype)

    def linear(self, x: Array, out: int) -> Array:
        """Return x·W/√fan-in with a fresh Gaussian weight matrix per sample, (size, rows, out).

        A large W is drawn and used a few columns at a time, so that memory stays bounded at any width.
        """
        fan_in = x.shape[-1]
        step = max(1, WEIGHTS // (self.size * fan_in))
        parts = [x @ self.normal(fan_in, min(step, out - start)) for start in range(0, out, step)]
        product = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        return product / self.dtype.type(np.sqrt(fan_in))

    def bartlett(self, rows: int, freedom: float) -> Array:
        """Return T_k(p), k = `rows`, p = `freedom`: (size, k, min(k, p)), with T·Tᵀ ~ Wishart_k(p).

        N(0, 1) below the diagonal, √χ²_{p−i} on it (theory §3). p need not be whole where it exceeds k − 1.
        """
        width = min(rows, math.ceil(freedom - 1e-9))
        below = _below_diagonal(rows, width)
        factor = np.zeros((self.size, rows * width), dtype=self.dtype)
        factor[:, below] = self._generator.standard_normal((self.size, below.size), dtype=self.dtype)
        half = (freedom - np.arange(width)) / 2
        factor[:, :: width + 1][:, :width] = np.sqrt(2 * self._generator.standard_gamma(half, (self.size, width)))
        return factor.reshape(self.size, rows, width)

    def frame(self, rows: int, columns: int) -> Array:
        """Return a uniformly random matrix with orthonormal rows, (size, rows, columns), rows ≤ columns."""
        q, r = np.linalg.qr(self.normal(columns, rows))
        signs = np.where(np.diagonal(r, axis1=-2, axis2=-1) < 0, -1, 1).astype(self.dtype)
        return (q * signs[:, None, :]).swapaxes(-1, -2)


@lru_cache(maxsize=256)
def _below_diagonal(rows: int, width: int) -> NDArray[np.intp]:
    """Flat positions strictly below the diagonal of a (rows, width) matrix."""
    i, j = np.tril_indices(rows, -1, width)
    return i * width + j
