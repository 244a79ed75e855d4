"""View 1: finite networks with Gaussian weights. The ground truth; O(m n²) work per layer and sample."""

from collections.abc import Generator, Sequence
from contextlib import closing
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

__all__ = ["sample"]


def __dir__() -> list[str]:
    return sorted(__all__)


Dtype = Literal["float32", "float64"]
"""Type of the numbers in the networks."""


@dataclass(frozen=True)
class NetworkWalk:
    """The representations X, (samples, m, n), of a batch of networks, layer by layer."""

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
        """Return X0 = √n·L0·Q, L0·L0ᵀ = V0, Q uniform with orthonormal rows: V0 determines X0 up to a rotation."""
        n = self.architecture.width
        frame = draws.frame(linalg.column_count(self.factor), n)
        return linalg.product(self.factor.astype(frame.dtype), frame) * frame.dtype.type(np.sqrt(n))

    def step(self, state: Array, draws: Draws) -> Array:
        for layer in self.architecture.block:
            state = layer.network_step(state, draws)
        return state

    def _factor(self, state: Array) -> Array:
        """Return X/√n, a factor of V, in float64."""
        return state.astype(np.float64) / np.sqrt(state.shape[-1])

    def covariance(self, state: Array) -> Array:
        return linalg.gram(self._factor(state))

    def eigenvalues(self, state: Array) -> Array:
        return linalg.squared_singular_values(linalg.lq(self._factor(state)))

    def outside_window(self, state: Array, stop: stopping.Window, rank: int) -> NDArray[np.bool_]:
        return stopping.outside_window(self._factor(state), stop, rank)


def batch_size(architecture: Architecture) -> int:
    """Return the number of networks in a batch, so that a weight matrix of all of them stays small."""
    n = architecture.width
    widest = max(layer.largest_weight(n) for layer in architecture.block)
    return sampling.batch_size(n * widest)


def sample(
    architecture: Architecture,
    v0: ArrayLike,
    samples: int,
    seed: int,
    *,
    record: int | Sequence[int] | None = None,
    stop: stopping.Window = stopping.DEFAULT_WINDOW,
    workers: int | None = None,
    client: Any = None,
    dtype: Dtype = "float64",
) -> Ensemble:
    """Draw the token covariances of networks at initialisation.

    ```python
    arch = st.shaped_transformer(width=32, depth=4)
    v0 = st.inputs.equicorrelated(tokens=4, correlation=0.2)
    networks = st.network.sample(arch, v0, samples=8, seed=0)
    networks.correlation()[:, -1, 0, 1]  # of the first two tokens after the last layer, for each network
    ```

    **Arguments:**

    - `architecture`: the network.
    - `v0`: initial covariance, (m, m), whose rank is at most the width. Each network gets inputs with exactly this
      covariance, in a uniformly random orientation.
    - `samples`: number of networks, each with fresh weights.
    - `seed`: whole number; the same seed gives the same samples for any number of workers and any records.
    - `record`: the layers to record: `None` (the default) for at most 11 evenly spaced ones, a number of layers, or a
      sequence of layers.
    - `stop`: (low, high); a path is frozen at the first layer at which an eigenvalue of V is outside. By default only
      explosions are. If V0 is singular, only the rank(V0) largest eigenvalues are compared with `low`.
    - `workers`: number of threads; `None` (the default) means all cores.
    - `client`: a Dask client, used instead of threads; default none.
    - `dtype`: `"float64"` (the default) or `"float32"`, which halves the memory but cannot resolve eigenvalues below
      1e-13 of the largest.

    **Returns:** an `Ensemble`.

    **Raises:** `InputError` for arguments out of range, or more samples than fit into memory.

    **Effects on the process:** while threads draw, BLAS uses one thread in the whole process. With the GNU C library,
    the process (or the cluster's worker) keeps up to 256 MB of freed memory for reuse from then on.
    """
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype must be 'float32' or 'float64' (got {dtype!r})")
    v = sampling.check_covariance(architecture, v0)
    walk = NetworkWalk(architecture, sampling.initial_factor(v, architecture.width), batch_size(architecture), dtype)
    layers = sampling.recorded_layers(record, architecture.depth)
    drawn = sampling.draw_paths(walk, samples, seed, layers, stop, workers, client)
    return Ensemble.of_draws(drawn, walk, layers, v, seed, {"stop": list(stop), "dtype": dtype})


def stream(
    architecture: Architecture,
    v0: ArrayLike,
    samples: int,
    seed: int,
    *,
    batch: int,
    stop: stopping.Window,
    record: int | Sequence[int] | None = 1,
    skip: int = 0,
    workers: int | None = None,
) -> Generator[Ensemble, None, None]:
    """Yield networks in float64 batch by batch, as `chain.stream` does.

    **Arguments:** as in `chain.stream`.

    **Returns:** ensembles in the order of the draws, `samples` in all.
    """
    v = sampling.check_covariance(architecture, v0)
    size = min(batch_size(architecture), batch)
    walk = NetworkWalk(architecture, sampling.initial_factor(v, architecture.width), size, "float64")
    layers = sampling.recorded_layers(record, architecture.depth)
    settings = {"stop": list(stop), "dtype": "float64"}
    with closing(sampling.stream_paths(walk, samples, seed, layers, stop, workers, skip)) as batches:
        for paths in batches:
            yield Ensemble.of_draws(paths, walk, layers, v, seed, settings)
