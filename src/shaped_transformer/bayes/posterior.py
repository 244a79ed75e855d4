"""The posterior over networks: which networks, with which weights; and what they predict at test points."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..numerics.arrays import Floats
from . import gaussian
from .evidence import Hyperparameters
from .gaussian import Prediction
from .mixture import Mixture
from .networks import Networks, in_batches
from .normals import Particles

DROPPED = 1e-12
"""Networks whose weights together are below this are left out of predictions."""

PREDICTED_NUMBERS = 2**24
"""Numbers that the predictions of all networks may take at a time, 128 megabytes: test points go in groups."""


@dataclass(frozen=True, eq=False)
class Posterior:
    """Networks with weights, at a scale and a noise.

    **Attributes:**

    - `particles`: the networks.
    - `weights`: theirs, summing to 1.
    - `at`: prior scale and noise.
    - `log_evidence`, `error`: log of the marginal likelihood, and its standard error.
    - `effective`: effective sample size.
    - `tempered`: whether it was reached by tempering, and not by weights of the prior's draws.
    """

    particles: Particles
    weights: Floats
    at: Hyperparameters
    log_evidence: float
    error: float
    effective: float
    tempered: bool

    def kept(self) -> NDArray[np.int64]:
        """Return the networks whose weights matter, in their order."""
        order = np.argsort(self.weights)
        dropped = np.cumsum(self.weights[order]) < DROPPED
        return np.sort(order[~dropped])

    def predict(self, networks: Networks, y: Floats, tests: Floats, workers: int | None) -> list[Mixture]:
        """Return the predictive mixtures of consecutive groups of test points.

        **Arguments:**

        - `networks`: at the training inputs.
        - `y`: observations, (P, D).
        - `tests`: test points, (T, p).
        - `workers`: number of threads.
        """
        kept = self.kept()
        size = max(1, PREDICTED_NUMBERS // (len(kept) * (y.shape[1] + 1)))
        groups = np.array_split(tests, -(-len(tests) // size))
        return [self._mixture(networks, y, group, kept, workers) for group in groups]

    def _mixture(
        self, networks: Networks, y: Floats, tests: Floats, kept: NDArray[np.int64], workers: int | None
    ) -> Mixture:
        means, variances = np.empty((len(kept), len(tests), y.shape[1])), np.empty((len(kept), len(tests)))
        weights = self.weights[kept] / self.weights[kept].sum()
        task = partial(self._predicted, networks, y, tests, kept, joint=False)
        for some, found in in_batches(task, len(kept), networks.batch_size(len(tests)), workers, "predict"):
            means[some], variances[some] = found.mean, found.covariance
        return Mixture(weights, means, variances)

    def covariance(self, networks: Networks, y: Floats, tests: Floats, workers: int | None) -> tuple[Floats, Floats]:
        """Return mean, (T, D), and covariance, (T, T, D), of test points that are drawn jointly."""
        kept = self.kept()
        weights = self.weights[kept] / self.weights[kept].sum()
        count, outputs = len(tests), y.shape[1]
        means, total = np.empty((len(kept), count, outputs)), np.zeros((count, count))
        task = partial(self._predicted, networks, y, tests, kept, joint=True)
        parts = {}
        for some, found in in_batches(task, len(kept), networks.batch_size(count), workers, "predict"):
            means[some] = found.mean
            parts[int(some[0])] = np.tensordot(weights[some], found.covariance, axes=1)
        for _, part in sorted(parts.items()):  # in one order, so that the sum does not depend on the threads
            total += part
        mean = np.tensordot(weights, means, axes=1)
        spread = np.einsum("s,std,sud->tud", weights, means - mean, means - mean)
        return mean, spread + total[:, :, None]

    def _predicted(
        self,
        networks: Networks,
        y: Floats,
        tests: Floats,
        kept: NDArray[np.int64],
        some: NDArray[np.int64],
        *,
        joint: bool,
        cancelled: Callable[[], bool],
    ) -> Prediction:
        """Return the predictions of a batch of the kept networks."""
        if cancelled():
            raise InterruptedError
        which = kept[some]
        normals, further = self.particles.normals(which), self.particles.further(which)
        features = networks.features(normals, tests, further, joint)
        own, asked = np.split(features, [len(networks.inputs)], axis=1)
        found = gaussian.predict(own, asked, y, self.at.scale, self.at.noise, joint)
        if not (np.isfinite(found.mean).all() and np.isfinite(found.covariance).all()):
            raise InputError("outputs overflow at some of these inputs: scale them like the training inputs")
        return found
