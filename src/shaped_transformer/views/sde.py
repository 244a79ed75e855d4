"""View 3: the limit of infinite depth and width, dV = b(V) dt + Σ(V)^½ dB, t = layer/width (theory §4).

There are two schemes:

- `wishart` (the default): a step of length h is a step of the exact chain at width 1/h, with the softmax expanded and
  the hidden layer's kernel in closed form. V is always positive semi-definite; weak order 1.
- `euler`: Euler–Maruyama on V, the textbook reference. V may become indefinite; such a path is stopped.
"""

import math
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checks import check_count
from ..design.architecture import Architecture
from ..errors import InputError, NoProportionalLimit, counted
from ..numerics import linalg
from ..numerics.arrays import Array
from ..numerics.draws import Draws
from . import sampling, stopping
from .ensemble import Ensemble

__all__ = ["check_limit", "check_steps", "diffusion", "drift", "fewest_steps", "sample"]


def __dir__() -> list[str]:
    return sorted(__all__)


Scheme = Literal["wishart", "euler"]
"""Name of a numerical scheme."""

STEPS = 100
"""Default number of steps, unless many tokens, narrow heads or a strong drift need more."""

MAX_DEFAULT_STEPS = 20_000
"""Most steps that are taken by default; more must be requested with `steps`."""


@dataclass(frozen=True)
class WishartWalk:
    """Factors L, (samples, m, m), of a batch of covariances, in steps of length h."""

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

    def outside_window(self, state: Array, stop: stopping.Window, rank: int) -> NDArray[np.bool_]:
        return stopping.outside_window(state, stop, rank)


@dataclass(frozen=True)
class EulerWalk(WishartWalk):
    """Covariances V, (samples, m, m), in steps of length h of Euler–Maruyama."""

    def start(self, draws: Draws) -> Array:
        return linalg.gram(super().start(draws))

    def step(self, state: Array, draws: Draws) -> Array:
        n, h = self.architecture.width, self.h
        factor = linalg.semidefinite_factor(state)
        for layer in self.architecture.block:
            state = state + h * layer.drift(linalg.gram(factor), n) + math.sqrt(h) * layer.noise(factor, n, draws)
        # A step to an indefinite matrix is invalid. NaN marks it, so that it is not taken and the path stops.
        values = np.linalg.eigvalsh(np.where(np.isfinite(state), state, 0))
        lost = values[..., 0] < -1e-12 * np.abs(values[..., -1])
        return np.where(lost[:, None, None], np.nan, state)

    def covariance(self, state: Array) -> Array:
        return state

    def eigenvalues(self, state: Array) -> Array:
        return np.maximum(np.linalg.eigvalsh(state)[..., ::-1], 0)

    def outside_window(self, state: Array, stop: stopping.Window, rank: int) -> NDArray[np.bool_]:
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
    stop: stopping.Window = stopping.DEFAULT_WINDOW,
    workers: int | None = None,
    client: Any = None,
) -> Ensemble:
    """Draw paths of the limiting SDE of the token covariance, up to time T = depth/width.

    ```python
    arch = st.shaped_transformer(width=200, depth=50)
    v0 = st.inputs.equicorrelated(tokens=4, correlation=0.2)
    limit = st.sde.sample(arch, v0, samples=16, seed=0, steps=20)
    limit.time  # (records,): depth/width, from 0 to 0.25
    ```

    **Arguments:** as in `network.sample`, without `dtype`, and

    - `steps`: number of time steps; `None` (the default) means 100, or more if many tokens, narrow heads or a strong
      drift need them. A layer of `record` between two steps is recorded at the nearest step, whose layer, which is then
      not whole, is in `Ensemble.depth`.
    - `scheme`: `"wishart"` (the default) or `"euler"`.

    **Returns:** an `Ensemble`; `stopped` is in layers, rounded up.

    **Raises:** `NoProportionalLimit` with the reason if the architecture has no such limit; `InputError` for arguments
    out of range, such as too few steps, or more samples than fit into memory.

    **Effects on the process:** while threads draw, BLAS uses one thread in the whole process. With the GNU C library,
    the process (or the cluster's worker) keeps up to 256 MB of freed memory for reuse from then on.
    """
    check_limit(architecture)
    if scheme not in ("wishart", "euler"):
        raise InputError(f"scheme must be 'wishart' or 'euler' (got {scheme!r})")
    v = sampling.check_covariance(architecture, v0)
    steps = check_steps(architecture, len(v), steps, scheme)
    walk = new_walk(architecture, sampling.initial_factor(v, len(v)), steps, scheme)
    at = _recorded_steps(record, architecture.depth, steps)
    drawn = sampling.draw_paths(walk, samples, seed, at, stop, workers, client)
    settings = {"stop": list(stop), "steps": steps, "scheme": scheme}
    return Ensemble.of_draws(drawn, walk, at, v, seed, settings)


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
    """Yield paths of the Wishart scheme batch by batch, with the default steps, as `chain.stream` does.

    **Arguments:** as in `chain.stream`.

    **Returns:** ensembles in the order of the draws, `samples` in all.

    **Raises:** as `sample`.
    """
    check_limit(architecture)
    v = sampling.check_covariance(architecture, v0)
    steps = check_steps(architecture, len(v))
    walk = new_walk(architecture, sampling.initial_factor(v, len(v)), steps, "wishart")
    walk = replace(walk, size=min(walk.size, batch))
    at = _recorded_steps(record, architecture.depth, steps)
    settings = {"stop": list(stop), "steps": steps, "scheme": "wishart"}
    with closing(sampling.stream_paths(walk, samples, seed, at, stop, workers, skip)) as batches:
        for paths in batches:
            yield Ensemble.of_draws(paths, walk, at, v, seed, settings)


def _recorded_steps(record: int | Sequence[int] | None, depth: int, steps: int) -> NDArray[np.int64]:
    """Return the steps that are nearest to the recorded layers."""
    layers = sampling.recorded_layers(record, depth)
    return np.unique(np.rint(layers * (steps / depth)).astype(np.int64))


def new_walk(
    architecture: Architecture, factor: Array, steps: int, scheme: Scheme, sample_last: bool | None = None
) -> WishartWalk:
    """Return the walk from a factor of V0, with as many samples in a batch as fit into the cache.

    **Arguments:**

    - `architecture`: the network.
    - `factor`: L0 with V0 = L0·L0ᵀ, (m, m).
    - `steps`: number of steps.
    - `scheme`: `"wishart"` or `"euler"`.
    - `sample_last`: the memory layout (`linalg`); `None` (the default) means the faster one.
    """
    last = linalg.prefers_kernels(len(factor)) if sample_last is None else sample_last
    size = sampling.batch_size(len(factor) ** 2, sampling.SAMPLE_LAST_NUMBERS if last else sampling.BATCH_NUMBERS // 4)
    kind = WishartWalk if scheme == "wishart" else EulerWalk
    return kind(architecture, factor, size, steps, last)


def fewest_steps(architecture: Architecture, tokens: int) -> int:
    """Return the smallest number of steps that the Wishart scheme can take.

    A step is a layer of width 1/h, with heads and hidden widths in proportion. Its Wishart factors need at least as
    many degrees of freedom as there are tokens.

    ```python
    st.sde.fewest_steps(st.shaped_transformer(width=200, depth=50), tokens=8)  # 4
    ```

    **Arguments:**

    - `architecture`: the network.
    - `tokens`: their number m.

    **Returns:** the number of steps.
    """
    n = architecture.width
    inner = min(layer.smallest_inner_width(n) for layer in architecture.block)
    return math.ceil(architecture.time * tokens * max(2.0, n / inner))


def check_steps(architecture: Architecture, tokens: int, steps: int | None = None, scheme: Scheme = "wishart") -> int:
    """Return the number of steps that `sample` takes.

    ```python
    st.sde.check_steps(st.shaped_transformer(width=200, depth=50), tokens=8)  # 100
    ```

    **Arguments:**

    - `architecture`: the network.
    - `tokens`: their number m.
    - `steps`: the number to check; `None` (the default) means the default of `sample`.
    - `scheme`: `"wishart"` (the default) or `"euler"`.

    **Returns:** `steps`, or the default.

    **Raises:** `InputError` for too few steps, or a default of more than 20,000.
    """
    fewest = fewest_steps(architecture, tokens) if scheme == "wishart" else 1
    if steps is None:
        return max(STEPS, fewest, _resolving_steps(architecture))
    if check_count(steps, "steps") < fewest:
        raise InputError(
            f"steps must be at least {fewest} for {counted(tokens, 'token')} over depth/width = {architecture.time:g} "
            f"(got {steps}); leave it out for a safe choice"
        )
    return int(steps)


def _resolving_steps(architecture: Architecture) -> int:
    """Return a number of steps in each of which no layer's drift changes V by more than a tenth."""
    rate = max(layer.limit_rate() for layer in architecture.block)
    steps = 10 * architecture.time * rate
    if steps > MAX_DEFAULT_STEPS:
        raise InputError(
            f"the limit relaxes at the rate {rate:.3g} per unit of depth/width, so its SDE needs {steps:.3g} "
            "steps: choose a larger a of the activation, or give the number of steps with steps= (--steps)"
        )
    return math.ceil(steps)


def check_limit(architecture: Architecture) -> None:
    """Check that the architecture has a limit of proportional depth and width.

    ```python
    st.sde.check_limit(st.shaped_transformer(width=64, depth=16))
    ```

    **Arguments:**

    - `architecture`: the network.

    **Raises:** `NoProportionalLimit` with the reason if it has none.
    """
    sampling.check_architecture(architecture)
    for index, layer in enumerate(architecture.block):
        reason = layer.limit_obstacle()
        if reason:
            raise NoProportionalLimit(
                f"layer {index} of the block has no proportional limit: {reason} (chain and network can still draw it)"
            )


def drift(architecture: Architecture, v: ArrayLike) -> Array:
    """Return b(V), the drift of the limit, summed over the layers of the block (theory §4).

    ```python
    arch = st.shaped_transformer(width=64, depth=16)
    st.sde.drift(arch, st.inputs.equicorrelated(tokens=4, correlation=0.2)).shape  # (4, 4)
    ```

    **Arguments:**

    - `architecture`: the network.
    - `v`: a covariance V, (m, m).

    **Returns:** b(V), (m, m), per unit of time t = layer/width.

    **Raises:** `NoProportionalLimit` if the architecture has no limit, `InputError` if `v` is not a covariance.
    """
    check_limit(architecture)
    checked = sampling.check_covariance(architecture, v)
    return np.asarray(sum(layer.drift(checked, architecture.width) for layer in architecture.block))


def diffusion(architecture: Architecture, v: ArrayLike) -> Array:
    """Return Σ(V), the covariance of the limit's noise as a dense array, summed over the block (theory §4).

    It is for study and tests: the work is O(m⁶).

    ```python
    arch = st.shaped_transformer(width=64, depth=16)
    st.sde.diffusion(arch, st.inputs.equicorrelated(tokens=4, correlation=0.2)).shape  # (4, 4, 4, 4)
    ```

    **Arguments:**

    - `architecture`: the network.
    - `v`: a covariance V, (m, m).

    **Returns:** Σ(V), (m, m, m, m): entry [α, β, δ, ω] is the covariance of V^{αβ} and V^{δω} per unit of time.

    **Raises:** `NoProportionalLimit` if the architecture has no limit, `InputError` if `v` is not a covariance.
    """
    check_limit(architecture)
    checked = sampling.check_covariance(architecture, v)
    return np.asarray(sum(layer.diffusion(checked, architecture.width) for layer in architecture.block))
