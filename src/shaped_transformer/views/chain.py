"""View 2: the exact chain. The covariance of the finite network, drawn in law without any weights (theory §3).

The state is a factor L of V = L·Lᵀ with min(m, n) columns, carried by LQ steps so that collapsing eigenvalues keep
their digits. This view is a result of this project.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..design.architecture import Architecture
from ..numerics import linalg
from ..numerics.arrays import Array
from ..numerics.draws import Draws
from . import sampling, stopping
from .ensemble import Ensemble

HIDDEN_NUMBERS, LEAST_BLOCK = 2**20, 32
"""Hidden units of a sample-last block, so that few samples of a wide network are not many; and its least size."""


@dataclass(frozen=True)
class ChainWalk:
    """Factors L, (samples, lead + m, k), of a block of covariances, layer by layer."""

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
        """Rows before the tokens: 1 for LayerNorm (the all-ones vector), else 0."""
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

    def leaves(self, state: Array, stop: stopping.Window, rank: int) -> NDArray[np.bool_]:
        return stopping.leaves(linalg.rows(state, self.lead), stop, rank)


def new_walk(architecture: Architecture, factor: Array, sample_last: bool | None = None) -> ChainWalk:
    """Return the walk from a factor of V0, with as many samples per block as the cache holds.

    **Arguments:** `sample_last`: the layout, and so the path (`linalg`); `None` takes the faster one.
    """
    n, tokens = architecture.width, len(factor)
    last = linalg.prefers_kernels(tokens) if sample_last is None else sample_last
    hidden = tokens * max(layer.hidden_width_of(n) for layer in architecture.block)
    if last:
        largest = max(LEAST_BLOCK, HIDDEN_NUMBERS // max(hidden, 1))
        size = min(largest, sampling.block_size(tokens**2, sampling.SMALL_NUMBERS))
    else:
        size = sampling.block_size(max(hidden, 2 * tokens**2))
    return ChainWalk(architecture, factor, size, last)


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
) -> Ensemble:
    """Draw the token covariance of the finite network, exactly in law, without drawing weights.

    **Arguments:** as in `network.sample`.

    **Returns:** an `Ensemble` with the law of `network.sample`, at any width: hundreds to thousands of times faster at
    n = 1024 (benchmarks/README.md).

    **Raises:** `InputError` for arguments out of range.
    """
    v = sampling.check_start(architecture, v0)
    factor = sampling.initial_factor(v, architecture.width)
    walk = new_walk(architecture, factor)
    layers = sampling.record_steps(record, architecture.depth)
    drawn = sampling.draw(walk, samples, seed, layers, stop, workers, client)
    return Ensemble.of_draws(drawn, walk, layers, v, seed, {"stop": list(stop)})
