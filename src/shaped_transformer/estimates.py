"""Estimates with intervals from samples: quantiles, shares, means, two-sample distances."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from .errors import InputError
from .numerics.arrays import Floats

LEVELS = (0.05, 0.5, 0.95)
"""Quantiles of every band: its lower end, the median, its upper end."""
CONFIDENCE = 0.95
"""Confidence of every interval, unless a function says otherwise."""
NORMAL = 1.96
"""Half the width of a normal 95 % interval, in standard errors."""
BOUNDS = ("value", "low", "high")
"""Coordinate of the dimension `bound`, along which a dataset stores an estimate."""

Value = TypeVar("Value", float, Floats)


@dataclass(frozen=True)
class Estimate(Generic[Value]):
    """An estimated number, or an array of such numbers, with the ends of its interval.

    ```python
    median = st.statistics.median([0.1, 0.2, 0.4])
    print(median.value, median.low, median.high)
    ```

    **Attributes:**

    - `value`: the estimate.
    - `low`, `high`: the interval, at 95 % unless the function that made it says otherwise.
    """

    value: Value
    low: Value
    high: Value

    def __str__(self) -> str:
        """Return a number as `value [low, high]`, with three digits."""
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"

    @property
    def error(self) -> Value:
        """The standard error of a normal estimate with an interval of this width."""
        return (self.high - self.low) / (2 * NORMAL)

    def scaled(self, factor: float) -> Self:
        """Return the estimate of the number times `factor`."""
        ends = (self.low, self.high) if factor >= 0 else (self.high, self.low)
        return type(self)(factor * self.value, *(factor * end for end in ends))

    def overlaps(self, other: "Estimate[float]") -> bool:
        """Return whether the two intervals have a point in common."""
        return bool(self.low <= other.high and other.low <= self.high)

    def straddles(self, threshold: float) -> bool:
        """Return whether the interval contains numbers on both sides of a threshold."""
        return bool(self.low <= threshold < self.high)

    def to_array(self) -> Floats:
        """Return value, low and high along a last axis, as a dataset stores them (`BOUNDS`)."""
        return np.stack([self.value, self.low, self.high], axis=-1)


def from_array(bounds: ArrayLike) -> Estimate[float]:
    """Return the estimate that a dataset stores as (value, low, high)."""
    value, low, high = (float(x) for x in np.asarray(bounds, dtype=np.float64))
    return Estimate(value, low, high)


def to_array(estimates: Iterable[Any]) -> Floats:
    """Return estimates, or nested sequences of estimates, as an array whose last axis is `BOUNDS`."""
    return np.stack([e.to_array() if isinstance(e, Estimate) else to_array(e) for e in estimates])


def exact(value: float) -> Estimate[float]:
    """Return the estimate of a number that is known exactly."""
    return Estimate(value, value, value)


def normal(value: float, error: float) -> Estimate[float]:
    """Return the estimate of a number with a normal error, from its standard error."""
    return Estimate(value, value - NORMAL * error, value + NORMAL * error)


def mean(values: ArrayLike) -> Estimate[float]:
    """Return the mean of independent numbers, with a normal interval."""
    x = np.asarray(values, dtype=np.float64)
    return normal(float(x.mean()), float(x.std(ddof=1) / np.sqrt(len(x))))


def spread(values: ArrayLike) -> Estimate[float]:
    """Return the median of a few numbers, with their range as the interval."""
    x = np.asarray(values, dtype=np.float64)
    return Estimate(float(np.median(x)), float(x.min()), float(x.max()))


def quantiles(values: ArrayLike, q: Sequence[float] = LEVELS, *, confidence: float = CONFIDENCE) -> Estimate[Floats]:
    """Return quantiles over the first axis, with percentile bootstrap intervals.

    The quantile of a resample is an order statistic of the data whose rank has a known distribution, P(rank ≤ j) =
    P(Binomial(N, j/N) ≥ k), k = ⌈qN⌉. The intervals therefore need neither resampling nor a seed. The value is
    interpolated between order statistics, as in `numpy.quantile`, and the interval is widened to contain it.

    ```python
    band = st.statistics.quantiles([[0.1, 1.0], [0.2, 3.0], [0.4, 2.0]], (0.5,))
    print(band.value)  # [[0.2 2. ]]
    ```

    **Arguments:**

    - `values`: (samples, …).
    - `q`: the quantiles, in [0, 1]; default 5, 50 and 95 %.
    - `confidence`: confidence of the intervals, in (0, 1), default 0.95.

    **Returns:** an `Estimate` whose `value`, `low` and `high` are (quantiles, …).

    **Raises:** `InputError` if a number is out of range, or if there are no samples.
    """
    from scipy.special import betaincinv

    try:
        x, levels = np.asarray(values, dtype=np.float64), np.asarray(q, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"values and quantiles must be numbers (quantiles: {q!r})") from None
    if x.ndim == 0 or len(x) == 0:
        raise InputError("quantiles need at least one sample along the first axis")
    if levels.ndim != 1 or not ((levels >= 0) & (levels <= 1)).all():
        raise InputError(f"quantiles must be numbers in [0, 1] (got {q!r})")
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie in (0, 1) (got {confidence:g})")
    ordered, count = np.sort(x, axis=0), len(x)
    k = np.clip(np.ceil(levels * count), 1, count)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    ranks = [np.clip(np.ceil(count * betaincinv(k, count - k + 1, tail)), 1, count).astype(int) for tail in tails]
    low, high = (ordered[rank - 1] for rank in ranks)
    value = np.quantile(ordered, levels, axis=0)
    return Estimate(value, np.minimum(low, value), np.maximum(high, value))


def median(values: ArrayLike) -> Estimate[float]:
    """Return the median of independent numbers, with its percentile bootstrap interval.

    ```python
    print(st.statistics.median([0.1, 0.2, 0.4]))
    ```

    **Arguments:**

    - `values`: the numbers, (samples,).

    **Returns:** an `Estimate` with the interval at 95 %.

    **Raises:** `InputError` if there are no numbers.
    """
    middle = quantiles(values, (0.5,))
    return Estimate(float(middle.value[0]), float(middle.low[0]), float(middle.high[0]))


def share(events: ArrayLike, confidence: float = CONFIDENCE) -> Estimate[float]:
    """Return the share of true entries with its Wilson interval.

    ```python
    print(st.statistics.share([True, False, True, True]))
    ```

    **Arguments:**

    - `events`: truth values, of any shape.
    - `confidence`: confidence of the two-sided interval, in (0, 1), default 0.95.

    **Returns:** an `Estimate` of the probability of an event.

    **Raises:** `InputError` if there are no entries.
    """
    flags = np.asarray(events, dtype=bool)
    return share_of_counts(int(flags.sum()), flags.size, confidence)


@lru_cache(maxsize=1024)
def share_of_counts(successes: int, draws: int, confidence: float = CONFIDENCE) -> Estimate[float]:
    """Return the share of successes with its Wilson interval, as `share` does."""
    from scipy.stats import binomtest

    if draws == 0:
        raise InputError("a share needs at least one event")
    test = binomtest(successes, draws)
    interval = test.proportion_ci(confidence, method="wilson")
    return Estimate(float(test.statistic), float(interval.low), float(interval.high))


@dataclass(frozen=True)
class Distance:
    """The distance between two samples.

    ```python
    found = st.statistics.two_sample([0.1, 0.2, 0.4], [0.3, 0.5, 0.6])
    print(found.distance, found.p_value)
    ```

    **Attributes:**

    - `distance`: the two-sample Kolmogorov–Smirnov distance, in [0, 1].
    - `p_value`: the probability of at least this distance if the distributions are equal.
    """

    distance: float
    p_value: float


def two_sample(first: ArrayLike, second: ArrayLike) -> Distance:
    """Return the two-sample Kolmogorov–Smirnov distance and its p-value.

    Numbers that agree to ten digits count as equal, so that rounding errors of a constant make no difference.

    ```python
    print(st.statistics.two_sample([0.1, 0.2, 0.4], [0.3, 0.5, 0.6]).p_value)
    ```

    **Arguments:**

    - `first`, `second`: samples of one number each, (samples,).

    **Returns:** a `Distance`.
    """
    from scipy.stats import ks_2samp

    result = ks_2samp(_round_to_ten_digits(first), _round_to_ten_digits(second), method="auto")
    return Distance(float(result.statistic), float(result.pvalue))


def distance(first: ArrayLike, second: ArrayLike) -> Estimate[float]:
    """Return the Kolmogorov–Smirnov distance of two distributions with an interval, from samples of each.

    The interval adds the bounds of Dvoretzky, Kiefer, Wolfowitz and Massart for the two distribution functions, each at
    97.5 %. It is conservative, and contains 0 where the samples do not distinguish the distributions.

    **Arguments:**

    - `first`, `second`: samples of one number each, (samples,).
    """
    value = two_sample(first, second).distance
    error = sum(np.sqrt(np.log(2 / 0.025) / (2 * len(np.asarray(draws)))) for draws in (first, second))
    return Estimate(value, max(0.0, value - error), min(1.0, value + error))


def _round_to_ten_digits(values: ArrayLike) -> Floats:
    """Return numbers rounded to ten significant decimal digits, at any scale."""
    x = np.asarray(values, dtype=np.float64)
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(mantissa, 10), exponent)
