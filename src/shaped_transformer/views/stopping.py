"""Windows of eigenvalues: a path is frozen at the first step at which an eigenvalue of V is outside its window."""

import math

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..numerics import linalg
from ..numerics.arrays import Array

Window = tuple[float, float]
"""Lowest and highest allowed eigenvalue."""

DEFAULT_WINDOW: Window = (0.0, 1e8)
"""Window of `sample` by default: only explosions leave it, so that collapse can be followed to tiny eigenvalues."""

WINDOW: Window = (1e-4, 1e4)
"""Window in which a path counts as stable: that of [ST], cited from memory, as its text was not available."""


def check_window(stop: Window) -> Window:
    """Return the window (low, high) as floats.

    **Raises:** `InputError` unless 0 ≤ low < high.
    """
    try:
        low, high = (float(x) for x in stop)
    except (TypeError, ValueError):
        raise InputError(f"stop must be a pair (low, high) of eigenvalues (got {stop!r})") from None
    if not (0 <= low < high) or math.isinf(low):
        raise InputError(f"stop must satisfy 0 <= low < high (got low={low:g}, high={high:g})")
    return low, high


def outside_window(factor: Array, stop: Window, rank: int) -> NDArray[np.bool_]:
    """Return whether V = factor·factorᵀ has an eigenvalue above `high`, or too many below `low`, (samples,).

    The `rank` largest eigenvalues must be at least `low`, where `rank` is that of V0. The others are no sign of
    collapse: V0 is zero in these directions, and only nonlinear layers can fill them.

    The largest eigenvalue is between tr V/m and tr V, the smallest between 1/tr V⁻¹ and m/tr V⁻¹. If `rank` is m,
    eigenvalues are computed only for samples that these bounds leave undecided.
    """
    low, high = stop
    tokens = factor.shape[-2]
    trace = linalg.squared_norm(factor)
    out = trace > tokens * high
    undecided = (trace > high) & ~out
    if low > 0 and rank < tokens:
        factor, undecided = linalg.shorten(factor), ~out
    elif low > 0:
        factor = linalg.lq(factor)
        if linalg.column_count(factor) < tokens:
            return np.ones(len(factor), dtype=bool)
        inverse = linalg.inverse_squared_norm(factor)
        below = inverse * low > tokens
        undecided |= ~(inverse * low < 1) & ~below
        out |= below
    which = np.flatnonzero(undecided & ~out)
    if which.size:
        values = linalg.squared_singular_values(factor[which])
        out[which] = (values[:, 0] > high) | (values[:, rank - 1] < low)
    return out
