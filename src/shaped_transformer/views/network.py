"""View 1: real finite networks with real Gaussian weights. Ground truth; O(m n²) work per layer and sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..design.architecture import Architecture
from ..errors import InputError
from ..numerics import linalg
from ..numerics.arrays import Array
from ..numerics.draws import Draws
from . import sampling, stopping
from .ensemble import Ensemble

Dtype = Literal["float32", "float64"]


@dataclass(frozen=True)
class NetworkWalk:
    """The representations X, (samples, m, n), of a block of networks, layer by layer."""

    architecture: Architecture
    factor: Array
    size: int
    dtype: Dtype = "float64"

    view = "network"
    sample_last = False

    @property
    def steps(self) -> int:
        return self.architecture.depth

    def start(self, draws: Draws) -> Array:
        """X0 = √n·L0·Q with L0·L0ᵀ = V0 and Q uniform with orthonormal rows: V0 fixes X0 up to a rotation."""
        n = self.architecture.width
        frame = draws.frame(linalg.column_count(self.factor), n)
        return linalg.product(self.factor.astype(frame.dtype), frame) * frame.dtype.type(np.sqrt(n))

    def step(self, state: Array, draws: Draws) -> Array:
        for layer in self.architecture.block:
            state = layer.network_step(state, draws)
        return state

    def _factor(self, state: Array) -> Array:
        return state.astype(np.float64) / np.sqrt(state.shape[-1])

    def covariance(self, state: Array) -> Array:
        return linalg.gram(self._factor(state))

    def eigenvalues(self, state: Array) -> Array:
        return linalg.squared_singular_values(linalg.lq(self._factor(state)))

    def leaves(self, state: Array, stop: stopping.Window, rank: int) -> NDArray[np.bool_]:
        return stopping.leaves(self._factor(state), stop, rank)


def block_size(architecture: Architecture) -> int:
    """Return how many networks to draw at a time, so that a weight matrix of all of them stays small."""
    n = architecture.width
    widest = max(layer.largest_weight(n) for layer in architecture.block)
    return sampling.block_size(n * widest)


def sample(
    architecture: Architecture,
    v0: ArrayLike,
    samples: int,
    seed: int,
    *,
    record: int | Sequence[int] | None = None,
    stop: stopping.Window = stopping.FOLLOWED,
    workers: int | None = None,
    client: Any = None,
    dtype: Dtype = "float64",
) -> Ensemble:
    """Draw the token covariance of real networks at initialisation.

    **Arguments:**

    - `architecture`: the network.
    - `v0`: initial covariance, (m, m); its rank may not exceed the width. Each network gets inputs with exactly this
      covariance, in a uniformly random orientation.
    - `samples`: number of networks, each with fresh weights.
    - `seed`: whole number; the same seed gives the same draws whatever the workers and records.
    - `record`: which layers to keep: `None` (at most 11 evenly spaced ones), how many, or a sequence of layers.
    - `stop`: (low, high); a path is frozen at the first layer at which an eigenvalue of V lies outside. The default
      only stops explosions. Of a singular V0 only the rank(V0) largest eigenvalues count downwards.
    - `workers`: threads, default all cores. `client`: a Dask client instead.
    - `dtype`: `"float64"` (default) or `"float32"`, which halves the memory but cannot follow an eigenvalue below 1e-13
      of the largest.

    **Returns:** an `Ensemble`.

    **Raises:** `InputError` for arguments out of range.
    """
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype must be 'float32' or 'float64' (got {dtype!r})")
    v = sampling.check_start(architecture, v0)
    walk = NetworkWalk(architecture, sampling.initial_factor(v, architecture.width), block_size(architecture), dtype)
    layers = sampling.record_steps(record, architecture.depth)
    drawn = sampling.draw(walk, samples, seed, layers, stop, workers, client)
    return Ensemble.of_draws(drawn, walk, layers, v, seed, {"stop": list(stop), "dtype": dtype})
