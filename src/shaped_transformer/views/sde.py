"""View 3: the limit of infinite depth and width, dV = b(V) dt + Σ(V)^½ dB, t = layer/width (theory §4).

Two schemes. `wishart` (default): a step of length h is a step of the exact chain at width 1/h with the softmax expanded
and the hidden layer's kernel in closed form; never indefinite, weak order 1. `euler`: Euler–Maruyama on V, the textbook
reference; it may lose positivity, and such a path is stopped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..design.architecture import Architecture
from ..errors import InputError, NoProportionalLimit
from ..numerics import linalg
from ..numerics.arrays import Array
from ..numerics.draws import Draws
from . import sampling, stopping
from .ensemble import Ensemble

Scheme = Literal["wishart", "euler"]

STEPS = 100
"""Default number of steps; more where many tokens, narrow heads or a strong drift need them."""
MOST_STEPS = 20_000
"""Of those that are taken without being asked for."""


@dataclass(frozen=True)
class WishartWalk:
    """Factors L, (samples, m, m), of a block of covariances, step by step of length h."""

    architecture: Architecture
    factor: Array
    size: int
    steps: int
    sample_last: bool

    view = "sde"
    dtype = "float64"

    @property
    def h(self) -> float:
        """Length of a step."""
        return self.architecture.time / self.steps

    def start(self, draws: Draws) -> Array:
        factor = np.broadcast_to(self.factor, (self.size, *self.factor.shape))
        return linalg.sample_last(factor) if self.sample_last else factor

    def step(self, state: Array, draws: Draws) -> Array:
        for layer in self.architecture.block:
            state = layer.limit_step(state, self.h, self.architecture.width, draws)
        return state

    def covariance(self, state: Array) -> Array:
        return linalg.gram(state)

    def eigenvalues(self, state: Array) -> Array:
        return linalg.squared_singular_values(state)

    def leaves(self, state: Array, stop: stopping.Window, rank: int) -> NDArray[np.bool_]:
        return stopping.leaves(state, stop, rank)


@dataclass(frozen=True)
class EulerWalk(WishartWalk):
    """Covariances V, (samples, m, m), themselves, by Euler–Maruyama."""

    def start(self, draws: Draws) -> Array:
        return linalg.gram(super().start(draws))

    def step(self, state: Array, draws: Draws) -> Array:
        n, h = self.architecture.width, self.h
        factor = linalg.semidefinite_factor(state)
        for layer in self.architecture.block:
            state = state + h * layer.drift(linalg.gram(factor), n) + math.sqrt(h) * layer.noise(factor, n, draws)
        # A step out of the cone of covariances has no meaning: as NaN it is not taken, and the path stops there.
        values = np.linalg.eigvalsh(np.where(np.isfinite(state), state, 0))
        lost = values[..., 0] < -1e-12 * np.abs(values[..., -1])
        return np.where(lost[:, None, None], np.nan, state)

    def covariance(self, state: Array) -> Array:
        return state

    def eigenvalues(self, state: Array) -> Array:
        return np.maximum(np.linalg.eigvalsh(state)[..., ::-1], 0)

    def leaves(self, state: Array, stop: stopping.Window, rank: int) -> NDArray[np.bool_]:
        low, high = stop
        if low == 0 and (np.trace(state, axis1=-2, axis2=-1) <= high).all():
            return np.zeros(len(state), dtype=bool)
        values = np.linalg.eigvalsh(np.where(np.isfinite(state), state, 0))
        return np.asarray((values[..., -1] > high) | (values[..., -rank] < (low or -np.inf)))


def sample(
    architecture: Architecture,
    v0: ArrayLike,
    samples: int,
    seed: int,
    *,
    steps: int | None = None,
    scheme: Scheme = "wishart",
    record: int | Sequence[int] | None = None,
    stop: stopping.Window = stopping.FOLLOWED,
    workers: int | None = None,
    client: Any = None,
) -> Ensemble:
    """Draw the limiting SDE of the token covariance up to T = depth/width.

    **Arguments:** as in `network.sample`, and

    - `steps`: number of time steps, default 100 or as many as tokens, heads and a strong drift need. Layers asked for
      by `record` that fall between two steps are read at the nearest step; its layer, then not whole, is in
      `Ensemble.depth`.
    - `scheme`: `"wishart"` (default) or `"euler"`.

    **Returns:** an `Ensemble`; `stopped` is in layers, rounded up.

    **Raises:** `NoProportionalLimit` with the reason where the architecture has no such limit; `InputError` for
    arguments out of range, too few steps among them.
    """
    check_limit(architecture)
    if scheme not in ("wishart", "euler"):
        raise InputError(f"scheme must be 'wishart' or 'euler' (got {scheme!r})")
    v = sampling.check_start(architecture, v0)
    steps = check_steps(architecture, len(v), steps, scheme)
    walk = new_walk(architecture, sampling.initial_factor(v, len(v)), steps, scheme)
    layers = sampling.record_steps(record, architecture.depth)
    at = np.unique(np.rint(layers * (steps / architecture.depth)).astype(np.int64))
    drawn = sampling.draw(walk, samples, seed, at, stop, workers, client)
    settings = {"stop": list(stop), "steps": steps, "scheme": scheme}
    return Ensemble.of_draws(drawn, walk, at, v, seed, settings)


def new_walk(
    architecture: Architecture, factor: Array, steps: int, scheme: Scheme, sample_last: bool | None = None
) -> WishartWalk:
    """Return the walk from a factor of V0, with as many samples per block as the cache holds.

    **Arguments:** `sample_last`: the layout, and so the path (`linalg`); `None` takes the faster one.
    """
    last = linalg.prefers_kernels(len(factor)) if sample_last is None else sample_last
    size = sampling.block_size(len(factor) ** 2, sampling.SMALL_NUMBERS if last else sampling.BLOCK_NUMBERS // 4)
    kind = WishartWalk if scheme == "wishart" else EulerWalk
    return kind(architecture, factor, size, steps, last)


def fewest_steps(architecture: Architecture, tokens: int) -> int:
    """Return the smallest number of steps of the Wishart scheme.

    A step is a layer of width 1/h with heads and hidden width in proportion; its Wishart factors need at least as many
    degrees of freedom as there are tokens.
    """
    n = architecture.width
    inner = min(layer.smallest_inner_width(n) for layer in architecture.block)
    return math.ceil(architecture.time * tokens * max(2.0, n / inner))


def check_steps(architecture: Architecture, tokens: int, steps: int | None = None, scheme: Scheme = "wishart") -> int:
    """Return a number of steps, checked; `None` stands for the default.

    **Raises:** `InputError` if there are too few, or the default would be too many.
    """
    fewest = fewest_steps(architecture, tokens) if scheme == "wishart" else 1
    if steps is None:
        return max(STEPS, fewest, _resolving_steps(architecture))
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < fewest:
        raise InputError(
            f"steps must be a whole number of at least {fewest} for {tokens} tokens over depth/width = "
            f"{architecture.time:g} (got {steps!r}); leave it out for a safe choice"
        )
    return int(steps)


def _resolving_steps(architecture: Architecture) -> int:
    """Steps so short that the drift of no layer moves V by more than a tenth in one."""
    rate = max(layer.limit_rate() for layer in architecture.block)
    steps = 10 * architecture.time * rate
    if steps > MOST_STEPS:
        raise InputError(
            f"the limit relaxes at the rate {rate:.3g} per unit of depth/width, so that its SDE needs {steps:.3g} "
            "steps: choose a larger a of the activation, or say with steps= (--steps) how many to take"
        )
    return math.ceil(steps)


def check_limit(architecture: Architecture) -> None:
    """Raise `NoProportionalLimit` with the reason if the architecture has no depth-and-width limit."""
    sampling.check_architecture(architecture)
    for index, layer in enumerate(architecture.block):
        reason = layer.limit_obstacle()
        if reason:
            raise NoProportionalLimit(
                f"layer {index} of the block has no proportional limit: {reason}. chain and network can still draw it"
            )


def drift(architecture: Architecture, v: ArrayLike) -> Array:
    """Return b(V), the drift of the limit summed over the block (theory §4).

    **Arguments:** `architecture`; `v`: a covariance, (m, m).

    **Returns:** (m, m), per unit of time t = layer/width.

    **Raises:** `NoProportionalLimit`; `InputError` if `v` is not a covariance.
    """
    check_limit(architecture)
    checked = sampling.check_start(architecture, v)
    return np.asarray(sum(layer.drift(checked, architecture.width) for layer in architecture.block))


def diffusion(architecture: Architecture, v: ArrayLike) -> Array:
    """Return Σ(V), the covariance of the limit's noise, dense, summed over the block (theory §4).

    **Arguments:** `architecture`; `v`: a covariance, (m, m). For study and tests: the work is O(m⁶).

    **Returns:** (m, m, m, m): entry [α, β, δ, ω] is the covariance of V^{αβ} and V^{δω} per unit of time.

    **Raises:** `NoProportionalLimit`; `InputError` if `v` is not a covariance.
    """
    check_limit(architecture)
    checked = sampling.check_start(architecture, v)
    return np.asarray(sum(layer.diffusion(checked, architecture.width) for layer in architecture.block))
