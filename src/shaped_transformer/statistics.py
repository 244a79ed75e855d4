"""What is read off covariances: correlation, effective rank, quantiles, two-sample distances."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError

Floats = NDArray[np.float64]


def correlation(covariance: Floats) -> Floats:
    """Return ρ^{αβ} = V^{αβ}/√(V^{αα}V^{ββ}), (…, m, m), inside [−1, 1]; 0 for a token of norm 0 (theory §1)."""
    norm = np.sqrt(np.maximum(np.diagonal(covariance, axis1=-2, axis2=-1), 0))
    first = np.divide(covariance, norm[..., :, None], out=np.zeros_like(covariance), where=norm[..., :, None] > 0)
    rho = np.divide(first, norm[..., None, :], out=np.zeros_like(covariance), where=norm[..., None, :] > 0)
    return np.clip(rho, -1, 1)


def mean_token_norm(covariance: Floats) -> Floats:
    """Return tr V / m, the mean over tokens of ‖x‖²/n, (…)."""
    return np.asarray(np.mean(np.diagonal(covariance, axis1=-2, axis2=-1), axis=-1))


def mean_absolute_correlation(covariance: Floats) -> Floats:
    """Return the mean of |ρ^{αβ}| over pairs α ≠ β, (…); 0 for one token."""
    m = covariance.shape[-1]
    if m == 1:
        return np.zeros(covariance.shape[:-2])
    pairs = np.tril_indices(m, -1)
    return np.asarray(np.mean(np.abs(correlation(covariance)[..., *pairs]), axis=-1))


def effective_rank(eigenvalues: Floats) -> Floats:
    """Return exp(−Σ p log p), p = eigenvalues / their sum, (…): 1 when all tokens are parallel, m when orthonormal.

    A covariance of zero has effective rank 1.
    """
    total = np.sum(eigenvalues, axis=-1, keepdims=True)
    p = np.divide(eigenvalues, total, out=np.zeros_like(eigenvalues), where=total > 0)
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    return np.asarray(np.exp(-np.sum(p * logs, axis=-1)))


@dataclass(frozen=True, eq=False)
class Quantiles:
    """Quantiles with bootstrap intervals: `q`, and `value`, `low`, `high`, each (quantiles, …)."""

    q: Floats
    value: Floats
    low: Floats
    high: Floats


def quantiles(values: ArrayLike, q: Sequence[float] = (0.05, 0.5, 0.95), *, confidence: float = 0.95) -> Quantiles:
    """Return quantiles over the first axis, with percentile bootstrap intervals.

    The bootstrap is exact: the quantile of a resample is an order statistic of the data whose rank has a known law,
    P(rank ≤ j) = P(Binomial(N, j/N) ≥ k), k = ⌈qN⌉. So no resampling is needed, and no seed.

    **Arguments:**

    - `values`: (samples, …).
    - `q`: the quantiles, in [0, 1].
    - `confidence`: of the intervals, in (0, 1), default 0.95.

    **Returns:** `Quantiles`.

    **Raises:** `InputError` for numbers out of range or no samples.
    """
    from scipy.special import betaincinv

    x = np.asarray(values, dtype=np.float64)
    levels = np.asarray(q, dtype=np.float64)
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
    return Quantiles(levels, value, np.minimum(low, value), np.maximum(high, value))


@dataclass(frozen=True)
class Distance:
    """Two-sample Kolmogorov–Smirnov distance between two laws, and its p-value if they are the same."""

    distance: float
    p_value: float


def two_sample(first: ArrayLike, second: ArrayLike) -> Distance:
    """Return the Kolmogorov–Smirnov distance of two samples of one number each."""
    from scipy.stats import ks_2samp

    result = ks_2samp(first, second, method="auto")
    return Distance(float(result.statistic), float(result.pvalue))


@dataclass(frozen=True)
class Share:
    """A proportion with its Wilson interval."""

    value: float
    low: float
    high: float


def share(events: NDArray[np.bool_], confidence: float = 0.95) -> Share:
    """Return the share of true entries with its Wilson interval."""
    from scipy.stats import binomtest

    test = binomtest(int(np.sum(events)), len(events))
    interval = test.proportion_ci(confidence, method="wilson")
    return Share(float(test.statistic), float(interval.low), float(interval.high))
