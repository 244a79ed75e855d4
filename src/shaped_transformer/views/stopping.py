"""When a path leaves the window of eigenvalues in which it is followed."""

import math

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..numerics import linalg
from ..numerics.arrays import Array

Window = tuple[float, float]

FOLLOWED: Window = (0.0, 1e8)
"""Window in which paths are followed by default: it stops explosions only, so that collapse can be followed down."""
WINDOW: Window = (1e-4, 1e4)
"""Window of eigenvalues in which a path counts as alive: that of [ST], as remembered."""


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


def leaves(factor: Array, stop: Window, rank: int) -> NDArray[np.bool_]:
    """Return which samples have an eigenvalue of V = factor·factorᵀ above `high`, or too many below `low`, (samples,).

    The `rank` largest must stay above `low`, where `rank` is that of V0: directions that the input does not have say
    nothing of collapse. Where V0 is singular nonlinear layers may fill them later, or not.

    The largest eigenvalue lies between tr V/m and tr V, the smallest between 1/tr V⁻¹ and m/tr V⁻¹. Only samples that
    these bounds leave open are decomposed, and all where the smallest is not the one that counts.
    """
    low, high = stop
    tokens = factor.shape[-2]
    trace = linalg.squared_norm(factor)
    out = trace > tokens * high
    open_question = (trace > high) & ~out
    if low > 0 and rank < tokens:
        factor, open_question = linalg.shorten(factor), ~out
    elif low > 0:
        factor = linalg.lq(factor)
        if linalg.column_count(factor) < tokens:
            return np.ones(len(factor), dtype=bool)
        inverse = linalg.inverse_squared_norm(factor)
        beyond = inverse * low > tokens
        open_question |= ~(inverse * low < 1) & ~beyond
        out |= beyond
    which = np.flatnonzero(open_question & ~out)
    if which.size:
        values = linalg.squared_singular_values(factor[which])
        out[which] = (values[:, 0] > high) | (values[:, rank - 1] < low)
    return out
