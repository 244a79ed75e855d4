"""Compiled batched kernels for small matrices, sample index last: (rows, columns, samples).

The innermost loop runs over the samples, so that it fills the vector registers at any matrix size. Products skip
entries that are zero in all samples, which makes lower-triangular factors cheap without a kernel of their own.
"""

import math
from typing import Any

import numpy as np
from numba import boolean, float64, int64, types, void
from numpy.typing import NDArray

from .arrays import Array
from .compilation import compiled

_BATCH, _ROW = float64[:, :, ::1], float64[:, ::1]
_MASK = types.Array(boolean, 2, "C", readonly=True)
_MATRIX = types.Array(float64, 2, "C", readonly=True)

TINY = 1e-280
"""Squared lengths below this count as zero, which avoids a division by a number that has underflowed."""


@compiled(boolean(float64[::1]))
def _all_zero(a: Array) -> bool:
    """Whether an entry is zero in all samples."""
    for x in a:  # noqa: SIM110 (a loop that compiles)
        if x != 0:
            return False
    return True


@compiled(int64[::1](_BATCH))
def _row_ends(a: Array) -> NDArray[np.int64]:
    """For each row, the column after the last one that is not zero in all samples."""
    ends = np.zeros(a.shape[0], np.int64)
    for i in range(a.shape[0]):
        j = a.shape[1]
        while j > 0 and _all_zero(a[i, j - 1]):
            j -= 1
        ends[i] = j
    return ends


@compiled(int64[::1](_BATCH))
def _column_starts(a: Array) -> NDArray[np.int64]:
    """For each column, the first row that is not zero in all samples."""
    starts = np.zeros(a.shape[1], np.int64)
    for j in range(a.shape[1]):
        i = 0
        while i < a.shape[0] and _all_zero(a[i, j]):
            i += 1
        starts[j] = i
    return starts


@compiled(void(_ROW, _ROW, int64, float64[::1]))
def _add_dot(x: Array, y: Array, stop: int, out: Array) -> None:
    """Add Σ_q x[q]·y[q], q < `stop`, to `out`; four terms at a time, so that `out` is read and written less often."""
    q = 0
    while q + 4 <= stop:
        x0, x1, x2, x3 = x[q], x[q + 1], x[q + 2], x[q + 3]
        y0, y1, y2, y3 = y[q], y[q + 1], y[q + 2], y[q + 3]
        for s in range(out.size):
            out[s] += x0[s] * y0[s] + x1[s] * y1[s] + x2[s] * y2[s] + x3[s] * y3[s]
        q += 4
    while q < stop:
        x0, y0 = x[q], y[q]
        for s in range(out.size):
            out[s] += x0[s] * y0[s]
        q += 1


@compiled(void(_ROW, _BATCH, int64, int64, int64, float64[::1]))
def _add_column(x: Array, b: Array, j: int, start: int, stop: int, out: Array) -> None:
    """Add Σ_q x[q]·b[q, j], start ≤ q < `stop`, to `out`, as `_add_dot` does."""
    q = start
    while q + 4 <= stop:
        x0, x1, x2, x3 = x[q], x[q + 1], x[q + 2], x[q + 3]
        y0, y1, y2, y3 = b[q, j], b[q + 1, j], b[q + 2, j], b[q + 3, j]
        for s in range(out.size):
            out[s] += x0[s] * y0[s] + x1[s] * y1[s] + x2[s] * y2[s] + x3[s] * y3[s]
        q += 4
    while q < stop:
        x0, y0 = x[q], b[q, j]
        for s in range(out.size):
            out[s] += x0[s] * y0[s]
        q += 1


@compiled(void(_BATCH, _BATCH, _BATCH))
def product(a: Array, b: Array, out: Array) -> None:
    """out = a·b."""
    ends, starts = _row_ends(a), _column_starts(b)
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            out[i, j, :] = 0
            _add_column(a[i], b, j, starts[j], ends[i], out[i, j])


@compiled(void(float64, _BATCH, float64, _BATCH, _BATCH, _BATCH))
def skip_and_product(skip: float, x: Array, scale: float, a: Array, b: Array, out: Array) -> None:
    """out = skip·x + scale·a·b, where `x` may have fewer columns than `out`."""
    ends, starts = _row_ends(a), _column_starts(b)
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            entries = out[i, j]
            entries[:] = 0
            _add_column(a[i], b, j, starts[j], ends[i], entries)
            for s in range(entries.size):
                entries[s] *= scale
            if j < x.shape[1]:
                kept = x[i, j]
                for s in range(entries.size):
                    entries[s] += skip * kept[s]


@compiled(void(_BATCH, _BATCH, _BATCH))
def product_t(a: Array, b: Array, out: Array) -> None:
    """out = a·bᵀ."""
    a_ends, b_ends = _row_ends(a), _row_ends(b)
    for i in range(a.shape[0]):
        for j in range(b.shape[0]):
            out[i, j, :] = 0
            _add_dot(a[i], b[j], min(a_ends[i], b_ends[j]), out[i, j])


@compiled(void(_BATCH, _BATCH))
def gram(a: Array, out: Array) -> None:
    """out = a·aᵀ."""
    ends = _row_ends(a)
    for i in range(a.shape[0]):
        for j in range(i + 1):
            out[i, j, :] = 0
            _add_dot(a[i], a[j], min(ends[i], ends[j]), out[i, j])
            out[j, i] = out[i, j]


@compiled(void(_BATCH, float64[::1]))
def squared_norm(a: Array, out: Array) -> None:
    """out = Σ a²."""
    out[:] = 0
    for i in range(a.shape[0]):
        _add_dot(a[i], a[i], a.shape[1], out)


@compiled(void(_BATCH, _BATCH))
def absorb(factor: Array, a: Array) -> None:
    """Replace the square L = `factor` by a lower-triangular factor of L·Lᵀ + a·aᵀ; `a` is overwritten.

    One Householder reflection of [L a] from the right per row leaves the diagonal entry of L and zeros in the row of
    `a`. The reflections act on the factors themselves, so that small eigenvalues keep their digits. A row that depends
    on the rows above it gets a zero on the diagonal.
    """
    rows, samples = a.shape[0], a.shape[2]
    pivot, scale, dot = np.empty(samples), np.empty(samples), np.empty(samples)
    for i in range(rows):
        diagonal = factor[i, i]
        for s in range(samples):
            dot[s] = diagonal[s] * diagonal[s]
        _add_dot(a[i], a[i], a.shape[1], dot)
        for s in range(samples):
            length = math.sqrt(dot[s])
            mirrored = -math.copysign(length, diagonal[s])
            pivot[s] = diagonal[s] - mirrored
            if dot[s] < TINY:
                scale[s] = 0.0
            else:
                scale[s] = 1 / (length * abs(pivot[s]))
                diagonal[s] = mirrored
        for r in range(i + 1, rows):
            below = factor[r, i]
            for s in range(samples):
                dot[s] = below[s] * pivot[s]
            _add_dot(a[i], a[r], a.shape[1], dot)
            for s in range(samples):
                dot[s] *= scale[s]
                below[s] -= dot[s] * pivot[s]
            for q in range(a.shape[1]):
                row, other = a[i, q], a[r, q]
                for s in range(samples):
                    other[s] -= dot[s] * row[s]


@compiled(void(_BATCH))
def make_diagonal_positive(factor: Array) -> None:
    """Flip the sign of the columns whose diagonal entry is negative, in place."""
    for i in range(factor.shape[1]):
        diagonal = factor[i, i]
        for r in range(factor.shape[0] - 1, i - 1, -1):
            entries = factor[r, i]
            for s in range(factor.shape[2]):
                entries[s] = math.copysign(1.0, diagonal[s]) * entries[s]


@compiled(void(_BATCH, float64, _BATCH))
def cholesky(v: Array, rounding: float, factor: Array) -> None:
    """factor = lower-triangular factor of the semi-definite v; pivots below `rounding`·v[j, j] count as zero."""
    size, samples = v.shape[0], v.shape[2]
    scale = np.empty(samples)
    factor[:] = 0
    for j in range(size):
        for i in range(j, size):
            rest = factor[i, j]
            for q in range(j):
                left, right = factor[i, q], factor[j, q]
                for s in range(samples):
                    rest[s] -= left[s] * right[s]
            for s in range(samples):
                rest[s] += v[i, j, s]
            if i == j:
                for s in range(samples):
                    safe = rest[s] > rounding * v[j, j, s]
                    scale[s] = 1 / math.sqrt(rest[s]) if safe else 0.0
            for s in range(samples):
                rest[s] *= scale[s]


@compiled(void(_BATCH, float64, _MASK, _BATCH))
def shifted_logits(logits: Array, scale: float, allowed: NDArray[np.bool_], out: Array) -> None:
    """out = scale·logits minus the largest allowed one of the row; −∞ where not allowed by the mask."""
    largest = np.empty(logits.shape[2])
    for i in range(logits.shape[0]):
        largest[:] = -math.inf
        for j in range(logits.shape[1]):
            if allowed[i, j]:
                entries = logits[i, j]
                for s in range(largest.size):
                    largest[s] = max(largest[s], scale * entries[s])
        for j in range(logits.shape[1]):
            for s in range(largest.size):
                out[i, j, s] = scale * logits[i, j, s] - largest[s] if allowed[i, j] else -math.inf


@compiled(void(_BATCH, float64[::1]))
def inverse_squared_norm(factor: Array, out: Array) -> None:
    """out = the sum of the squares of L⁻¹, L = `factor` square and lower triangular; infinite or NaN if singular."""
    size, samples = factor.shape[0], factor.shape[2]
    column = np.empty((size, samples))
    out[:] = 0
    for j in range(size):
        for i in range(j, size):
            entries = column[i]
            entries[:] = 0
            for q in range(j, i):
                left, right = factor[i, q], column[q]
                for s in range(samples):
                    entries[s] -= left[s] * right[s]
            pivot = factor[i, i]
            for s in range(samples):
                entries[s] = ((1.0 if i == j else 0.0) + entries[s]) / pivot[s]
                out[s] += entries[s] * entries[s]


@compiled(void(_BATCH, _MATRIX))
def normalise_rows(weights: Any, plus: Array) -> None:
    """Divide each row by its sum and add the row of `plus`, in place."""
    total = np.empty(weights.shape[2])
    for i in range(weights.shape[0]):
        total[:] = 0
        for j in range(weights.shape[1]):
            entries = weights[i, j]
            for s in range(total.size):
                total[s] += entries[s]
        for s in range(total.size):
            total[s] = 1 / total[s]
        for j in range(weights.shape[1]):
            entries = weights[i, j]
            for s in range(total.size):
                entries[s] = entries[s] * total[s] + plus[i, j]
