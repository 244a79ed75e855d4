"""Predictive distributions: mixtures of Gaussians over the networks of the posterior."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..numerics.arrays import Floats


@dataclass(frozen=True, eq=False)
class Mixture:
    """The distribution of the outputs at test points: Σ_s w_s N(μ_s, v_s), with correlated outputs only through s.

    **Attributes:**

    - `weights`: w, (networks,), summing to 1.
    - `means`: μ, (networks, T, D).
    - `variances`: v, (networks, T), the same for each output.
    """

    weights: Floats
    means: Floats
    variances: Floats

    def mean(self) -> Floats:
        """Return the means, (T, D)."""
        return np.tensordot(self.weights, self.means, axes=1)

    def variance(self) -> Floats:
        """Return the variances, (T, D)."""
        spread = np.tensordot(self.weights, (self.means - self.mean()) ** 2, axes=1)
        return spread + (self.weights @ self.variances)[:, None]

    def quantiles(self, q: Floats, noise: float) -> Floats:
        """Return quantiles of the outputs plus noise of this variance, (quantiles, T, D)."""
        from scipy.optimize import brentq
        from scipy.special import ndtr, ndtri

        spread = np.sqrt(self.variances + noise)
        out = np.empty((len(q), *self.means.shape[1:]))
        for (test, column), _ in np.ndenumerate(out[0]):
            mean, sd = self.means[:, test, column], spread[:, test]
            certain = sd == 0  # a step of the distribution function
            scale = np.where(certain, 1.0, sd)
            for i, level in enumerate(q):
                ends = mean + sd * ndtri(level)
                low, high = float(ends.min()), float(ends.max())

                def excess(x: float, mean: Floats = mean, scale: Floats = scale, certain: Floats = certain) -> float:
                    below = np.where(certain, (x >= mean) * 1.0, ndtr((x - mean) / scale))
                    return float(self.weights @ below) - level  # noqa: B023 - called in this round of the loop only

                inside = low < high and excess(low) < 0 < excess(high)
                out[i, test, column] = brentq(excess, low, high) if inside else (low if excess(low) >= 0 else high)
        return out

    def log_density(self, y: Floats, noise: float) -> Floats:
        """Return the log-density of observations y, (T, D), with noise of this variance: jointly over outputs, (T,)."""
        from scipy.special import logsumexp

        total, off = self.variances + noise, np.sum((y - self.means) ** 2, axis=-1)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            each = -(off / total + y.shape[1] * np.log(2 * np.pi * total)) / 2
            each = np.where(total > 0, each, np.where(off > 0, -np.inf, np.inf))  # without variance: one value
            return np.asarray(logsumexp(each + np.log(self.weights)[:, None], axis=0))


def checked_levels(q: ArrayLike) -> Floats:
    """Return probabilities as an array, (quantiles,).

    **Raises:** `InputError` unless they are numbers between 0 and 1, at least one.
    """
    try:
        levels = np.atleast_1d(np.asarray(q, dtype=np.float64))
    except (TypeError, ValueError):
        levels = np.array([np.nan])
    if levels.ndim != 1 or not levels.size or not ((levels > 0) & (levels < 1)).all():
        raise InputError(f"quantiles must be numbers between 0 and 1, such as (0.05, 0.95) (got {q!r})")
    return levels
