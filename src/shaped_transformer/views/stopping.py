"""When a path leaves the window of eigenvalues in which it is followed."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from . import linalg

Array = NDArray[Any]
Window = tuple[float, float]


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


def leaves(factor: Array, stop: Window) -> NDArray[np.bool_]:
    """Return which samples have an eigenvalue of V = factor·factorᵀ below `low` or above `high`, (samples,).

    The trace bounds the largest eigenvalue; the determinant bounds the smallest from below (arithmetic–geometric mean).
    Only samples that these bounds leave open are decomposed.
    """
    low, high = stop
    trace = linalg.squared_norm(factor)
    open_question = trace > high
    if low == 0 and not open_question.any():
        return open_question
    if low > 0:
        tokens = factor.shape[-2]
        factor = linalg.lq(factor)
        if linalg.columns(factor) < tokens:
            return np.ones(len(factor), dtype=bool)
        with np.errstate(divide="ignore"):
            log_det = 2 * np.sum(np.log(np.abs(linalg.diagonal(factor))), axis=-1)
        others = (tokens - 1) * np.log(trace / max(tokens - 1, 1)) if tokens > 1 else 0.0
        open_question |= ~(log_det - others > math.log(low))
    out = np.zeros(len(factor), dtype=bool)
    which = np.flatnonzero(open_question)
    if which.size:
        values = linalg.squared_singular_values(factor[which])
        out[which] = (values[:, 0] > high) | (values[:, -1] < low)
    return out
