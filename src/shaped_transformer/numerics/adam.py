"""Compiled product of vectors with a sum of Adam's updates, which is never formed.

An update is an entry-wise function of the gradients so far, G = l·r, each known by two thin factors. The rows of the
sum are made a few at a time and a tile of columns wide, multiplied and dropped.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float32, float64, int64, types, void

from .arrays import Array
from .compilation import compiled

TILE = 1024
"""Most columns of a tile: the rows in hand stay in the processor's second cache."""

ROWS = 8
"""Rows that are added at a time, so that sums are read and written less often."""


def _for_both(signature: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function in both precisions; `signature` takes one of them."""
    return compiled(signature(float32), signature(float64))


@_for_both(lambda real: void(real[::1], real[:, ::1], int64, real[::1]))
def _add_eight(c: Array, x: Array, low: int, out: Array) -> None:
    """Add Σ c[i]·x[i, low:] of eight rows to `out`."""
    c0, c1, c2, c3, c4, c5, c6, c7 = c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]
    stop = low + out.shape[0]
    x0, x1, x2, x3 = x[0, low:stop], x[1, low:stop], x[2, low:stop], x[3, low:stop]
    x4, x5, x6, x7 = x[4, low:stop], x[5, low:stop], x[6, low:stop], x[7, low:stop]
    for j in range(out.shape[0]):
        out[j] += (c0 * x0[j] + c1 * x1[j] + c2 * x2[j] + c3 * x3[j]) + (
            c4 * x4[j] + c5 * x5[j] + c6 * x6[j] + c7 * x7[j]
        )


@_for_both(lambda real: void(real, real[::1], real[::1]))
def _add_one(c: Any, x: Array, out: Array) -> None:
    """Add a multiple of a row to `out`."""
    for j in range(out.shape[0]):
        out[j] += c * x[j]


@_for_both(lambda real: void(real[::1], real, real, real, real, real[::1], real[::1]))
def _move(gradient: Array, beta1: Any, rest1: Any, beta2: Any, rest2: Any, first: Array, second: Array) -> None:
    """Make a step of both moments."""
    for j in range(first.shape[0]):
        g = gradient[j]
        first[j] = beta1 * first[j] + rest1 * g
        second[j] = beta2 * second[j] + rest2 * (g * g)


@_for_both(lambda real: void(real[::1], real[::1], real, real, real, real[::1]))
def _add_update(first: Array, second: Array, c: Any, root: Any, eps: Any, out: Array) -> None:
    """Add c·m/(√v·root + ε) to `out`."""
    for j in range(out.shape[0]):
        out[j] += c * first[j] / (np.sqrt(second[j]) * root + eps)


@_for_both(lambda real: void(real[::1], float64[::1]))
def _add_squares(x: Array, out: Array) -> None:
    """Add the squares of a row to `out`."""
    for j in range(out.shape[0]):
        out[j] += float64(x[j]) * float64(x[j])


@_for_both(lambda real: types.boolean(real[::1], real[:, ::1], int64, int64, int64, real[::1]))
def _gradient(factors: Array, right: Array, begin: int, end: int, low: int, out: Array) -> bool:
    """Write a row of the gradient of one step to `out`; return whether it may differ from zero."""
    out[:] = 0
    k, seen = begin, False
    while k + ROWS <= end:
        if np.any(factors[k : k + ROWS] != 0):
            _add_eight(factors[k : k + ROWS], right[k : k + ROWS], low, out)
            seen = True
        k += ROWS
    while k < end:
        if factors[k] != 0:
            _add_one(factors[k], right[k, low : low + out.shape[0]], out)
            seen = True
        k += 1
    return seen


def _signature(real: Any) -> Any:
    """Return the signature of `add_product` in a precision."""
    return void(
        real[:, ::1],
        real[:, ::1],
        int64[::1],
        real[:, ::1],
        real[::1],
        real,
        real[:, ::1],
        int64,
        real[:, ::1],
        float64[::1],
    )


@_for_both(_signature)
def add_product(
    left: Array,
    right: Array,
    ends: Array,
    scales: Array,
    betas: Array,
    eps: Any,
    x: Array,
    low: int,
    out: Array,
    squares: Array,
) -> None:
    """Add x·Δ, with Δ = Σ_s c_s·m̂_s/(√v̂_s + ε), to a tile of columns of `out`.

    **Arguments:**

    - `left`: left factors of all gradients, by row of the matrix, (a, K).
    - `right`: right factors, (K, b).
    - `ends`: (t,), where the factors of each step end.
    - `scales`: (t, 2), of each step: c_s over the bias correction of the first moment, and the inverse root of that of
      the second. A step of c_s = 0 only moves the moments.
    - `betas`: (4,), β₁, 1 − β₁, β₂ and 1 − β₂, in their precision.
    - `eps`: ε.
    - `x`: by row of the matrix, (a, m).
    - `low`: first column of the tile.
    - `out`: (m, b).
    - `squares`: (`TILE`,), to which the squares of Δ are added, or empty.
    """
    a, m = left.shape[0], x.shape[1]
    width = min(TILE, out.shape[1] - low)
    stop = low + width
    gradient, first, second = np.empty(width, out.dtype), np.empty(width, out.dtype), np.empty(width, out.dtype)
    made, c = np.zeros((ROWS, width), out.dtype), np.empty(ROWS, out.dtype)
    for row in range(0, a, ROWS):
        count = min(ROWS, a - row)
        made[:] = 0
        for r in range(count):
            begin, seen = 0, False
            for s in range(ends.shape[0]):
                some = _gradient(left[row + r], right, begin, ends[s], low, gradient)
                begin = ends[s]
                if some and not seen:
                    first[:] = 0
                    second[:] = 0
                seen = seen or some
                if seen:
                    _move(gradient, betas[0], betas[1], betas[2], betas[3], first, second)
                    if scales[s, 0] != 0:
                        _add_update(first, second, scales[s, 0], scales[s, 1], eps, made[r])
            if squares.shape[0] > 0:
                _add_squares(made[r], squares[:width])
        for t in range(m):
            for r in range(count):
                c[r] = x[row + r, t]
            if count == ROWS:
                _add_eight(c, made, 0, out[t, low:stop])
            else:
                for r in range(count):
                    _add_one(c[r], made[r], out[t, low:stop])
