"""View 2: the exact chain. Draws the covariance of a finite network from its distribution, without weights (theory §3).

The state is a factor L of V = L·Lᵀ with min(m, n) columns. LQ decompositions carry it from layer to layer, so that
collapsing eigenvalues keep their digits. This view is a result of this project.
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..design.architecture import Architecture
from ..numerics import linalg
from ..numerics.arrays import Array
from ..numerics.draws import Draws
from . import sampling, stopping
from .ensemble import Ensemble

__all__ = ["sample"]


def __dir__() -> list[str]:
    return sorted(__all__)


HIDDEN_NUMBERS = 2**20
"""Most hidden units in a sample-last batch: it limits the batches, and so the shortest run, of wide networks."""

MIN_BATCH = 32
"""Least number of samples in a sample-last batch, whatever the number of hidden units."""


@dataclass(frozen=True)
class ChainWalk:
    """Factors L, (samples, lead + m, k), of a batch of covariances, layer by layer."""

    architecture: Architecture
    factor: Array
    size: int
    sample_last: bool

    view = "chain"
    dtype = "float64"

    @property
    def steps(self) -> int:
        return self.architecture.depth

    @property
    def lead(self) -> int:
        """Number of rows before the tokens: 1 for LayerNorm (the all-ones vector), else 0."""
        return int(self.architecture.needs_mean)

    def start(self, draws: Draws) -> Array:
        factor = np.broadcast_to(self.factor, (self.size, *self.factor.shape))
        if not self.lead:
            return linalg.sample_last(factor) if self.sample_last else factor
        n, k = self.architecture.width, linalg.column_count(self.factor)
        # A uniform unit vector of R^n in a basis whose first k members span the tokens (theory §3, step 5).
        ones = draws.frame(1, n)
        inside = ones[..., :k]
        if n > k:
            outside = ones[..., k:]
            inside = linalg.hstack(inside, np.sqrt(linalg.row_products(outside, outside))[..., None])
        factor = linalg.lq(linalg.vstack(inside, factor)) if n > k else linalg.vstack(inside, factor)
        return linalg.sample_last(factor) if self.sample_last else factor

    def step(self, state: Array, draws: Draws) -> Array:
        for layer in self.architecture.block:
            state = layer.chain_step(state, self.architecture.width, draws, self.lead)
        return state

    def covariance(self, state: Array) -> Array:
        return linalg.gram(linalg.rows(state, self.lead))

    def eigenvalues(self, state: Array) -> Array:
        return linalg.squared_singular_values(linalg.rows(state, self.lead))

    def outside_window(self, state: Array, stop: stopping.Window, rank: int) -> NDArray[np.bool_]:
        return stopping.outside_window(linalg.rows(state, self.lead), stop, rank)


def new_walk(architecture: Architecture, factor: Array, sample_last: bool | None = None) -> ChainWalk:
    """Return the walk from a factor of V0, with as many samples in a batch as fit into the cache.

    **Arguments:**

    - `architecture`: the network.
    - `factor`: L0 with V0 = L0·L0ᵀ, (m, k).
    - `sample_last`: the memory layout (`linalg`); `None` (the default) means the faster one.
    """
    n, tokens = architecture.width, len(factor)
    last = linalg.prefers_kernels(tokens) if sample_last is None else sample_last
    hidden = tokens * max(layer.hidden_width_of(n) for layer in architecture.block)
    if last:
        largest = max(MIN_BATCH, HIDDEN_NUMBERS // max(hidden, 1))
        size = min(largest, sampling.batch_size(tokens**2, sampling.SAMPLE_LAST_NUMBERS))
    else:
        size = sampling.batch_size(max(hidden, 2 * tokens**2))
    return ChainWalk(architecture, factor, size, last)


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
) -> Ensemble:
    """Draw token covariances with exactly the distribution of `network.sample`, but without drawing weights.

    With 8 tokens and width 1024 this is hundreds (full block) to thousands (attention only) of times faster. With as
    many tokens as width it is no faster (benchmarks/README.md).

    ```python
    arch = st.shaped_transformer(width=64, depth=8)
    v0 = st.inputs.equicorrelated(tokens=4, correlation=0.2)
    chain = st.chain.sample(arch, v0, samples=16, seed=0)
    chain.covariance.shape  # (16, 9, 4, 4): samples, recorded layers, tokens, tokens
    ```

    **Arguments:** as in `network.sample`, without `dtype`.

    **Returns:** an `Ensemble`.

    **Raises:** `InputError` for arguments out of range, or more samples than fit into memory.

    **Effects on the process:** while threads draw, BLAS uses one thread in the whole process. With the GNU C library,
    the process (or the cluster's worker) keeps up to 256 MB of freed memory for reuse from then on.
    """
    v = sampling.check_covariance(architecture, v0)
    walk = new_walk(architecture, sampling.initial_factor(v, architecture.width))
    layers = sampling.recorded_layers(record, architecture.depth)
    drawn = sampling.draw_paths(walk, samples, seed, layers, stop, workers, client)
    return Ensemble.of_draws(drawn, walk, layers, v, seed, {"stop": list(stop)})


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
    """Yield covariances batch by batch, for callers that decide on the way how many they need.

    Closing the generator ends the drawing. Another `batch` gives other draws.

    **Arguments:** as in `sample`, with

    - `batch`: largest number of samples in a batch.
    - `record`: default 1, the last layer alone.
    - `skip`: number of batches of an earlier stream that this one continues; default none.

    **Returns:** ensembles in the order of the draws, `samples` in all.
    """
    v = sampling.check_covariance(architecture, v0)
    walk = new_walk(architecture, sampling.initial_factor(v, architecture.width))
    walk = replace(walk, size=min(walk.size, batch))
    layers = sampling.recorded_layers(record, architecture.depth)
    with closing(sampling.stream_paths(walk, samples, seed, layers, stop, workers, skip)) as batches:
        for paths in batches:
            yield Ensemble.of_draws(paths, walk, layers, v, seed, {"stop": list(stop)})
