"""Random matrices for one batch of samples, from one seeded stream: normals, Bartlett factors, weights of networks."""

import math
from collections.abc import Iterator

import numpy as np

from . import compilation, linalg
from .arrays import Array

WEIGHTS = 2**21
"""Number of weights of real networks in memory at a time: 16 megabytes."""

HIDDEN = 2**15
"""Number of hidden units in memory at a time in the sample-last layout: 256 kilobytes, which fit into the cache."""


class Draws:
    """A stream of random matrices for a batch of `size` samples.

    **Arguments:**

    - `seed`: the user's seed.
    - `view`, `batch`: small whole numbers. Streams that differ in either of them are independent.
    - `size`: number of samples in the batch. Every matrix is drawn for the whole batch, so that the stream does not
      depend on how many samples the caller keeps.
    - `dtype`: of the normals, default float64; float32 halves the memory of real networks.
    - `sample_last`: the memory layout of the matrices (`linalg`), which is also the order in which the stream is used.
    """

    def __init__(
        self, seed: int, view: int, batch: int, size: int, dtype: str = "float64", sample_last: bool = False
    ) -> None:
        self._generator = compilation.load("generator")
        self._state = self._generator.new_state(np.random.SeedSequence(seed, spawn_key=(view, batch)))
        self.size = size
        self.dtype = np.dtype(dtype)
        self.sample_last = sample_last

    def _normals(self, count: int) -> Array:
        """Return the next `count` normals of the stream."""
        out = np.empty(count, self.dtype)
        self._generator.fill_normals(*self._state, out)
        return out

    def normal(self, rows: int, columns: int) -> Array:
        """Return independent N(0, 1) entries, (size, rows, columns)."""
        numbers = self._normals(self.size * rows * columns)
        return linalg.batch(numbers, self.size, rows, columns, self.sample_last)

    def normal_chunks(self, rows: int, columns: int) -> Iterator[Array]:
        """Yield a normal matrix a few columns at a time, at least as many as it has rows, to save memory."""
        step = max(2 * rows, HIDDEN // (rows * self.size)) if self.sample_last else columns
        for start in range(0, columns, step):
            yield self.normal(rows, min(step, columns - start))

    def linear(self, x: Array, out: int) -> Array:
        """Return x·W/√fan-in with a fresh Gaussian weight matrix W per sample, (size, rows, out).

        A large W is drawn and used a few columns at a time, so that the memory is bounded at any width.
        """
        fan_in = x.shape[-1]
        step = max(1, WEIGHTS // (self.size * fan_in))
        parts = [x @ self.normal(fan_in, min(step, out - start)) for start in range(0, out, step)]
        product = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        return product / self.dtype.type(np.sqrt(fan_in))

    def bartlett(self, rows: int, freedom: float) -> Array:
        """Return Bartlett factors T_k(p), k = `rows`, p = `freedom`: (size, k, min(k, p)), with T·Tᵀ ~ Wishart_k(p).

        Entries are N(0, 1) below the diagonal and √χ²_{p−i} on it (theory §3). p need not be whole if p > k − 1.
        """
        return self.wide_normal(rows, freedom, 0)

    def wide_normal(self, rows: int, width: float, full: int) -> Array:
        """Return [G T], G (k, full) normal and T = T_k(p), k = `rows`, p = `width` − full; without T if p = 0.

        These are the first `full` columns of a normal matrix with `width` columns, and the other columns shortened to T
        by a rotation, which keeps their Gram matrix.
        """
        freedom = width - full
        columns = full + min(rows, math.ceil(freedom - 1e-9))
        out = np.empty((rows, columns, self.size))
        self._generator.fill_bartlett(*self._state, full, freedom, out)
        batch = linalg.batch(out, self.size, rows, columns, last=True)
        return batch if self.sample_last else np.ascontiguousarray(batch)

    def frame(self, rows: int, columns: int) -> Array:
        """Return a uniformly random matrix with orthonormal rows, (size, rows, columns), rows ≤ columns."""
        return linalg.frame(self.normal(columns, rows))
