"""The slope of a quantity against size, both in powers of two, with an interval, and what it means."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..estimates import CONFIDENCE, Estimate

FLAT = 0.1
"""Largest slope that counts as flat: sixteen times the size changes the quantity by less than a third."""
FAR = 0.25
"""Slopes beyond which an interval must not reach, for a quantity to be called flat."""
FANNING, FALLING, LEVEL, UNCLEAR = "fanning", "falling", "flat", "unclear"
WORDS = (FANNING, FALLING, LEVEL, UNCLEAR)


@dataclass(frozen=True)
class Slope(Estimate[float]):
    """Slope of log₂(quantity) against log₂(size): 1 where the quantity doubles with the size, 0 where it is flat.

    **Attributes:**

    - `value`, `low`, `high`: as in `st.statistics.median`; without bounds where each size has one draw alone.
    """

    @property
    def word(self) -> str:
        """`"fanning"` or `"falling"` where the interval lies above 0.1 or below −0.1; `"flat"` where it is within
        −0.25 and 0.25; `"unclear"` otherwise."""
        if self.low > FLAT:
            return FANNING
        if self.high < -FLAT:
            return FALLING
        return LEVEL if self.low > -FAR and self.high < FAR else UNCLEAR


def fit(factors: ArrayLike, values: Sequence[ArrayLike], confidence: float = CONFIDENCE) -> Slope:
    """Return the slope by least squares of the mean log₂(quantity) of each size.

    Draws are independent; their logarithms scatter by the same amount at all sizes, which is estimated from all of
    them. The interval is Student's; it is about the mean of draws, not about whether the line is straight.

    **Arguments:**

    - `factors`: of size, (sizes,), all different.
    - `values`: of each size the quantity in each draw, positive.
    - `confidence`: of the interval, default 0.95.

    **Raises:** `InputError` for fewer than two sizes, or values that are not positive.
    """
    from scipy.stats import t

    x = np.log2(np.asarray(factors, np.float64))
    if len(x) < 2 or len(set(x.tolist())) < len(x):
        raise InputError(f"a slope needs at least two different sizes (got {np.asarray(factors).tolist()})")
    logs = [np.log2(np.asarray(one, np.float64)) for one in values]
    if not all(one.size and np.isfinite(one).all() for one in logs):
        raise InputError("a slope needs positive numbers at every size")
    centred = x - x.mean()
    weights = centred / (centred**2).sum()
    value = float(weights @ [one.mean() for one in logs])
    free = sum(one.size - 1 for one in logs)
    if free == 0:
        return Slope(value, -np.inf, np.inf)
    variance = sum(((one - one.mean()) ** 2).sum() for one in logs) / free
    error = float(np.sqrt(variance * sum(w**2 / one.size for w, one in zip(weights, logs, strict=True))))
    half = float(t.ppf((1 + confidence) / 2, free)) * error
    return Slope(value, value - half, value + half)
