"""The marginal likelihood of the observations: its weights, its Monte-Carlo error, the scale and noise at its top."""

import math
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..numerics.arrays import Floats
from .gaussian import Spectra

NOISE_RANGE = (1e-6, 1e2)
"""Where the noise is searched for, in units of the mean square of y."""

SCALE_RANGE = (1e-4, 1e4)
"""Where the prior scale is searched for, in units of the mean square of y over the median variance of the outputs."""


@dataclass(frozen=True, eq=False)
class Weighted:
    """What a list of log-likelihoods of independent draws of the prior says (theory §9).

    **Attributes:**

    - `weights`: of the draws in the posterior, summing to 1.
    - `log_evidence`: log of the mean likelihood.
    - `error`: its standard error, √(1/ESS − 1/samples).
    - `effective`: the effective sample size ESS = 1/Σ w².
    """

    weights: Floats
    log_evidence: float
    error: float
    effective: float

    @classmethod
    def of(cls, log_likelihood: Floats) -> "Weighted":
        """Return the weights of draws with these log-likelihoods, (samples,).

        **Raises:** `InputError` if every likelihood is zero.
        """
        highest = float(np.max(log_likelihood))
        if not math.isfinite(highest):
            raise InputError("no network explains the observations: all outputs overflow; rescale X or y")
        likelihood = np.exp(log_likelihood - highest)
        total = float(np.sum(likelihood))
        weights = likelihood / total
        effective = float(1 / np.sum(weights**2))
        count = len(weights)
        error = math.sqrt(max(1 / effective - 1 / count, 0.0))
        return cls(weights, highest + math.log(total / count), error, effective)


@dataclass(frozen=True)
class Hyperparameters:
    """Prior scale a and noise σ² of the observations."""

    scale: float
    noise: float


@dataclass(frozen=True)
class Search:
    """Which of scale and noise maximise the evidence, and where they are searched for.

    **Attributes:**

    - `scale`, `noise`: the given values; `None` means to be found.
    - `scales`, `noises`: the ranges of the search.
    """

    scale: float | None
    noise: float | None
    scales: tuple[float, float]
    noises: tuple[float, float]

    @classmethod
    def of(cls, scale: float | None, noise: float | None, spectra: Spectra, y: Floats) -> "Search":
        """Return the search for the arguments that are `None`.

        **Raises:** `InputError` for constant observations, whose noise or scale has no best value.
        """
        if (scale is None or noise is None) and np.ptp(y, axis=0).max() == 0:
            raise InputError("y is constant, so the evidence has no best noise or prior scale: give both")
        size = float(np.mean(y**2))
        variance = float(np.median(np.nansum(spectra.values, axis=1))) / spectra.points
        unit = size / variance if variance > 0 else 1.0
        return cls(
            scale, noise, (SCALE_RANGE[0] * unit, SCALE_RANGE[1] * unit), (NOISE_RANGE[0] * size, NOISE_RANGE[1] * size)
        )

    @property
    def open(self) -> bool:
        """Whether anything is to be found."""
        return self.scale is None or self.noise is None

    def best(
        self, spectra: Spectra, log_weights: Floats, start: Hyperparameters | None = None, least: float = 0.0
    ) -> Hyperparameters:
        """Return the scale and noise of the largest evidence, log Σ_s exp(log_weights + log-likelihood of s).

        **Arguments:**

        - `spectra`: of the draws.
        - `log_weights`: of the draws, (networks,): minus their log-likelihoods at `start` if they are of the posterior.
        - `start`: where the search starts; `None` (the default) means at the best point of a coarse grid.
        - `least`: effective sample size, relative to the number of draws, of what the search may trust: it ends where
          the weights relative to `start` fall below. Default 0.
        """
        from scipy.optimize import minimize

        ranges = [np.log(self.scales), np.log(self.noises)]
        given = [None if v is None else math.log(v) if v > 0 else -math.inf for v in (self.scale, self.noise)]
        free = [i for i, value in enumerate(given) if value is None]

        def completed(point: Floats) -> tuple[float, float]:
            values = iter(point)
            scale, noise = (next(values) if value is None else value for value in given)
            return math.exp(scale), math.exp(noise)

        def loss(point: Floats) -> tuple[float, Floats]:
            scale, noise = completed(point)
            weighted = Weighted.of(log_weights + spectra.log_likelihood(scale, noise))
            return -weighted.log_evidence, -(weighted.weights @ spectra.slopes(scale, noise))[free]

        if start is None:
            axes = [np.linspace(ranges[i][0], ranges[i][1], 9) for i in free]
            grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(free))
            first = min(grid, key=lambda point: loss(point)[0])
        else:
            first = np.log([(start.scale, start.noise)[i] for i in free])
        bounds = [tuple(ranges[i]) for i in free]
        found = minimize(loss, np.clip(first, *np.transpose(bounds)), jac=True, method="L-BFGS-B", bounds=bounds)
        point = np.asarray(found.x)
        if start is not None:
            before = spectra.log_likelihood(start.scale, start.noise)
            while Weighted.of(spectra.log_likelihood(*completed(point)) - before).effective < least * len(before):
                point = (point + first) / 2
        return Hyperparameters(*completed(point))


def log_mean_exp(values: Floats, axis: int | None = None) -> Floats:
    """Return the log of the mean of exponentials."""
    from scipy.special import logsumexp

    count = values.size if axis is None else values.shape[axis]
    return np.asarray(logsumexp(values, axis=axis) - math.log(count))
