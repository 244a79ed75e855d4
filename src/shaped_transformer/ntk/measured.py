"""The dispersion of drawn kernels, with two intervals: the bootstrap's, and one that knows of the tail.

E Θ² lives in the tail of Θ. For a log-normal Θ with a variance s² of log Θ, it comes from draws 2s standard deviations
above the mean of log Θ, and the error of its estimate from draws 4s above. The bootstrap sees only what was drawn.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..checks import check_seed
from ..errors import InputError
from ..estimates import CONFIDENCE, Estimate, normal
from ..numerics.arrays import Floats

GROUPS = 200
"""Number of groups of draws that are resampled as one."""

RESAMPLES = 1000
"""Number of resamples of the bootstrap."""

BEYOND = 10
"""Number of draws expected beyond 4s from which on the bootstrap's interval is trusted."""


@dataclass(frozen=True)
class MeasuredDispersion:
    """An estimate of E Θ²/(E Θ)², with its two intervals.

    **Attributes:**

    - `bootstrap`: with the percentile bootstrap interval, which is too short where the tail is not reached.
    - `lognormal`: with the interval that a log-normal Θ with the draws' variance of log Θ would give.
    - `log_variance`: s², the variance of log Θ, over the draws that are not 0.
    - `reached`: whether the draws reach the tail from which the error comes, so that `bootstrap` can be trusted.
    """

    bootstrap: Estimate[float]
    lognormal: Estimate[float]
    log_variance: float
    reached: bool

    @property
    def honest(self) -> Estimate[float]:
        """The estimate with the bootstrap interval where the tail is reached, else with the union of both."""
        one, other = self.bootstrap, self.lognormal
        if self.reached:
            return one
        return Estimate(one.value, min(one.low, other.low), max(one.high, other.high))


def measure_dispersion(values: ArrayLike, *, seed: int = 0) -> MeasuredDispersion:
    """Estimate E Θ²/(E Θ)² from independent draws of one entry of Θ.

    ```python
    theta = st.ntk.sample(st.ntk.Perceptron(width=50, depth=10), np.ones((1, 50)), samples=1000, seed=0)
    found = st.ntk.measure_dispersion(theta[:, 0, 0])
    print(found.honest)
    ```

    **Arguments:**

    - `values`: the draws, (samples,), none negative.
    - `seed`: of the bootstrap, default 0.

    **Returns:** a `MeasuredDispersion`.

    **Raises:** `InputError` for fewer than ten draws, negative or undefined ones, or zeros alone.
    """
    try:
        x = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"values must be numbers, (samples,) (got {type(values).__name__})") from None
    if x.ndim != 1 or len(x) < 10:
        raise InputError(
            f"at least ten draws of one entry, (samples,), such as theta[:, 0, 0], are expected (got the shape "
            f"{x.shape})"
        )
    if not (np.isfinite(x) & (x >= 0)).all() or not x.any():
        raise InputError("draws of a kernel on one input are expected: finite, not negative and not all 0")
    x = x / x.max()
    ratio = float(np.mean(x**2) / np.mean(x) ** 2)
    logs = np.log(x[x > 0])
    variance = float(logs.var(ddof=1)) if len(logs) > 1 else 0.0
    beyond = len(x) * math.erfc(4 * math.sqrt(variance / 2)) / 2
    tail = normal(ratio, ratio * math.sqrt(_relative_variance(variance) / len(x)))
    tail = Estimate(ratio, max(tail.low, 1.0), tail.high)  # no number has a smaller ratio
    return MeasuredDispersion(_bootstrap(x, ratio, seed), tail, variance, beyond >= BEYOND)


def _relative_variance(s2: float) -> float:
    """Return N times the relative variance of the estimate from N draws of a log-normal number, log variance s²."""
    s2 = min(s2, 100.0)
    return max(math.exp(4 * s2) - 4 * math.exp(2 * s2) + 4 * math.exp(s2) - 1, 0.0)


def _bootstrap(x: Floats, ratio: float, seed: int) -> Estimate[float]:
    """Return the ratio with its percentile interval: groups of draws are resampled, as only sums count."""
    groups = np.array_split(x, min(GROUPS, len(x)))
    sums = np.array([(len(group), group.sum(), (group**2).sum()) for group in groups])
    rng = np.random.default_rng(check_seed(seed))
    times = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=RESAMPLES)
    count, first, second = (times @ sums).T
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(count * second / first**2, (tail, 1 - tail))
    return Estimate(ratio, min(float(low), ratio), max(float(high), ratio))
