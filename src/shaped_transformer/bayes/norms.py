"""The distribution of the squared norm of one output of a deep linear network, as nodes and weights of a quadrature."""

import math
from itertools import pairwise

import numpy as np

from ..numerics.arrays import Floats

LEFT_OUT = 37.0
"""The nodes leave out a share of at most exp(−37), also of E Q and of E Q²."""

TILTS = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Powers of Q whose mean the nodes give to many digits."""

STEP = 0.02
"""Largest distance of two nodes in log q: likelihoods of up to ten thousand observations are smooth beside it."""

NODES_IN_DEVIATION = 32
"""Least number of nodes in a standard deviation of log q."""


def norm_of_products(width: int, depth: int) -> tuple[Floats, Floats]:
    """Return nodes q and weights of Q = Π χ²_N/N, a product of d independent factors, E Q = 1.

    With Λ(s) = log E Q^s = d·[log Γ(N/2 + s) − log Γ(N/2) − s log(N/2)], log Q weighted with Q^s has the
    characteristic function exp(Λ(s + it) − Λ(s)), which a Fourier sum inverts on a grid. Each node takes its weight
    from the s of the largest weighted density there, so that the tails keep their digits. For smooth integrands the sum
    over the grid is exact to rounding.

    **Arguments:**

    - `width`: N.
    - `depth`: d.

    **Returns:** q and weights that sum to 1, (nodes,) each.
    """
    from scipy.special import loggamma

    half, norms = width / 2, _Norms(width, depth)
    low, high = norms.lowest(), norms.highest()
    step = min(STEP, norms.deviation() / NODES_IN_DEVIATION)
    count = 2 ** math.ceil(math.log2((high - low) / step))
    step = (high - low) / count
    t, x = 2 * np.pi * np.fft.fftfreq(count, step), low + step * np.arange(count)
    ends = [(norms.value(b) - norms.value(a)) / (b - a) for a, b in pairwise(TILTS)]  # both densities are equal there
    place = np.searchsorted(ends, x)
    weights = np.zeros(count)
    for i, s in enumerate(TILTS):
        log_phi = depth * (loggamma(half + s + 1j * t) - loggamma(half + s) - 1j * t * math.log(half))
        tilted = np.real(np.fft.fft(np.exp(log_phi - 1j * t * low))) / count
        here = place == i
        weights[here] = np.maximum(tilted[here], 0.0) * np.exp(norms.value(s) - s * x[here])
    return np.exp(x), weights / weights.sum()


def log_normal(time: float) -> tuple[Floats, Floats]:
    """Return nodes q and weights of exp(N(−α, 2α)), the limit of the product at depth/width α [DL].

    **Arguments:**

    - `time`: α > 0.

    **Returns:** as `norm_of_products`.
    """
    deviation = math.sqrt(2 * time)
    half = deviation * math.sqrt(2 * LEFT_OUT)
    step = min(STEP, deviation / NODES_IN_DEVIATION)
    x = np.arange(-time - half, -time + max(TILTS) * 2 * time + half, step)
    weights = np.exp(-((x + time) ** 2) / (4 * time))
    return np.exp(x), weights / weights.sum()


class _Norms:
    """The cumulant function Λ of log Q, and Chernoff's bounds from it.

    **Arguments:** as of `norm_of_products`.
    """

    def __init__(self, width: int, depth: int) -> None:
        self.half, self.depth = width / 2, depth

    def value(self, s: float) -> float:
        """Return Λ(s)."""
        from scipy.special import gammaln

        return self.depth * float(gammaln(self.half + s) - gammaln(self.half) - s * math.log(self.half))

    def slope(self, s: float) -> float:
        """Return Λ'(s), the mean of log Q weighted with Q^s."""
        from scipy.special import digamma

        return self.depth * float(digamma(self.half + s) - math.log(self.half))

    def deviation(self) -> float:
        """Return the standard deviation of log Q."""
        from scipy.special import polygamma

        return math.sqrt(self.depth * float(polygamma(1, self.half)))

    def _excess(self, s: float, tilt: float) -> float:
        """Return by how much the bound on the tail beyond Λ'(s), weighted with Q^tilt, is below exp(−`LEFT_OUT`)."""
        return (s - tilt) * self.slope(s) - self.value(s) + self.value(tilt) - LEFT_OUT

    def lowest(self) -> float:
        """Return a log q below which Q lies with probability of at most exp(−`LEFT_OUT`)."""
        from scipy.optimize import brentq

        share = 0.5
        while self._excess(-self.half * (1 - share), 0) < 0:
            share /= 2
        return self.slope(float(brentq(self._excess, -self.half * (1 - share), -1e-12, args=(0,))))

    def highest(self) -> float:
        """Return the same for the upper tail, weighted with the highest power."""
        from scipy.optimize import brentq

        tilt, far = max(TILTS), 1.0
        while self._excess(tilt + far, tilt) < 0:
            far *= 2
        return self.slope(float(brentq(self._excess, tilt + 1e-12, tilt + far, args=(tilt,))))
