"""View 2: the exact chain. The covariance of the finite network, drawn in law without any weights (theory §3).

The state is a factor L of V = L·Lᵀ with min(m, n) columns, carried by LQ steps so that collapsing eigenvalues keep
their digits. This view is a result of this project.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..architecture import Architecture
from . import linalg, sampling, stopping
from .draws import Draws
from .ensemble import Ensemble

Array = NDArray[Any]


@dataclass(frozen=True)
class ChainWalk:
    """Factors L, (samples, lead + m, k), of a block of covariances, layer by layer."""

    architecture: Architecture
    factor: Array
    size: int

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
            return factor
        n, k = self.architecture.width, linalg.columns(self.factor)
        # A uniform unit vector of R^n in a basis whose first k members span the tokens (theory §3, step 5).
        ones = draws.frame(1, n)
        inside = ones[..., :k]
        if n == k:
            return linalg.above(inside, factor)
        outside = ones[..., k:]
        rest = np.sqrt(linalg.row_products(outside, outside))[..., None]
        return linalg.lq(linalg.above(linalg.beside(inside, rest), factor))

    def step(self, state: Array, draws: Draws) -> Array:
        for layer in self.architecture.block:
            state = layer.chain_step(state, self.architecture.width, draws, self.lead)
        return state

    def covariance(self, state: Array) -> Array:
        return linalg.gram(linalg.rows(state, self.lead))

    def eigenvalues(self, state: Array) -> Array:
        return linalg.squared_singular_values(linalg.rows(state, self.lead))

    def leaves(self, state: Array, stop: stopping.Window) -> NDArray[np.bool_]:
        return stopping.leaves(linalg.rows(state, self.lead), stop)


def block_size(architecture: Architecture, tokens: int) -> int:
    """Return how many samples to draw at a time, so that the hidden units of all of them stay in the cache."""
    n = architecture.width
    hidden = max(layer.hidden_width_of(n) for layer in architecture.block)
    return sampling.block_size(tokens * max(hidden, 2 * tokens))


def sample(
    architecture: Architecture,
    v0: ArrayLike,
    samples: int,
    seed: int,
    *,
    record: int | Sequence[int] | None = None,
    stop: stopping.Window = (0.0, 1e8),
    workers: int | None = None,
    client: Any = None,
) -> Ensemble:
    """Draw the token covariance of the finite network, exactly in law, without drawing weights.

    **Arguments:** as in `network.sample`.

    **Returns:** an `Ensemble` with the law of `network.sample`, at any width: 300 to 4,000 times faster at n = 1024.

    **Raises:** `InputError` for arguments out of range.
    """
    v = sampling.check_start(architecture, v0)
    factor = sampling.initial_factor(v, architecture.width)
    walk = ChainWalk(architecture, factor, block_size(architecture, len(v)))
    layers = sampling.record_steps(record, architecture.depth)
    drawn = sampling.draw(walk, samples, seed, layers, stop, workers, client)
    return Ensemble.of_draws(drawn, walk, layers, v, seed, {"stop": list(stop)})
