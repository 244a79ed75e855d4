"""How stable a design is at initialisation, and how each parameter affects this (a result of this project)."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import check_count
from ..design.architecture import Architecture
from ..design.layers import Layer, Residual, ShapedAttention
from ..errors import DefinitionError, NoProportionalLimit
from ..estimates import Estimate, median, normal, share
from ..io.progress import progress
from ..numerics.arrays import Floats
from ..observables import mean_absolute_correlation
from ..views import chain, sampling, sde
from ..views.stopping import DEFAULT_WINDOW
from .criterion import Criterion

STEP = 1.1
"""Factor by which a parameter is multiplied to measure its effect: 10 % more."""
BATCHES = 16
"""Batches of samples, from whose scatter the errors of the effects are estimated."""
PARAMETERS = ("gamma", "tau0", "depth")
"""Parameters whose effects are measured."""


@dataclass(frozen=True)
class Effect:
    """The effect of one parameter on the three numbers of `Stability`.

    **Attributes:**

    - `parameter`: `"gamma"` (the scale of every residual layer), `"tau0"` (of every shaped attention) or `"depth"`.
    - `factor`: factor by which the parameter was multiplied: 1.1, or 1/1.1 where γ would exceed 1.
    - `healthy`, `mean_absolute_correlation`, `effective_rank`: differences that this makes, each an `Estimate` with a
      standard error.
    """

    parameter: str
    factor: float
    healthy: Estimate[float]
    mean_absolute_correlation: Estimate[float]
    effective_rank: Estimate[float]


@dataclass(frozen=True, eq=False)
class Stability:
    """The stability of a design at initialisation.

    ```python
    found = st.stability(st.shaped_transformer(16, 4), st.inputs.equicorrelated(2, 0.2), samples=64)
    for effect in found.effects:
        print(effect.parameter, effect.effective_rank.value, effect.effective_rank.error)
    ```

    **Attributes:**

    - `criterion`: when a network counts as healthy.
    - `healthy`: share of healthy networks; each end of its interval is a one-sided bound with the criterion's
      confidence.
    - `mean_absolute_correlation`: median over paths of the mean |ρ| over pairs at the last layer, with its interval
      at 95 %.
    - `effective_rank`: the same of the effective rank.
    - `drift`: b(V0), the expected change of V per unit of depth/width, (m, m); `None` if there is no limit.
    - `effects`: an `Effect` of 10 % for each parameter that the architecture has.
    """

    criterion: Criterion
    healthy: Estimate[float]
    mean_absolute_correlation: Estimate[float]
    effective_rank: Estimate[float]
    drift: Floats | None
    effects: tuple[Effect, ...]

    @property
    def growth(self) -> float | None:
        """The initial growth rate of the mean token norm: the mean of the diagonal of `drift`."""
        return None if self.drift is None else float(np.mean(np.diagonal(self.drift)))

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        return {
            "criterion": asdict(self.criterion),
            "healthy": asdict(self.healthy),
            "mean_absolute_correlation": asdict(self.mean_absolute_correlation),
            "effective_rank": asdict(self.effective_rank),
            "drift": None if self.drift is None else self.drift.tolist(),
            "effects": [asdict(effect) for effect in self.effects],
        }


def stability(
    architecture: Architecture,
    v0: ArrayLike,
    *,
    samples: int = 4096,
    seed: int = 0,
    criterion: Criterion | None = None,
    workers: int | None = None,
) -> Stability:
    """Measure how stable a design is at initialisation, by the exact chain, and the effect of 10 % of each parameter.

    ```python
    found = st.stability(st.shaped_transformer(16, 4), st.inputs.equicorrelated(2, 0.2), samples=64)
    print(found.healthy, found.effective_rank, found.growth)
    ```

    **Arguments:**

    - `architecture`: the network.
    - `v0`: its initial covariance, (m, m).
    - `samples`: number of paths, at least 16, default 4096; the errors fall with its square root.
    - `seed`: seed of all designs, default 0. The changed designs use the same random numbers, so that an effect is
      visible even if it is much smaller than the errors of the numbers themselves.
    - `criterion`: when a network counts as healthy, default `Criterion()`.
    - `workers`: number of threads, default all cores.

    **Returns:** a `Stability`.

    **Raises:** `InputError` if an argument is out of range.
    """
    check_count(samples, "samples", least=BATCHES)
    v0 = sampling.check_covariance(architecture, v0)
    wanted = criterion or Criterion()

    def draw(arch: Architecture) -> Floats:
        e = chain.sample(arch, v0, samples, seed, record=1, stop=DEFAULT_WINDOW, workers=workers)
        correlation = mean_absolute_correlation(e.covariance[:, -1])
        return np.stack([wanted.healthy(e), correlation, e.effective_rank()[:, -1]])

    changes = list(_changes(architecture))
    with progress("stability", 1 + len(changes)) as advance:
        base = draw(architecture)
        advance(1)
        effects = []
        for parameter, factor, changed in changes:
            effects.append(Effect(parameter, factor, *_difference(base, draw(changed))))
            advance(1)
    try:
        drift = sde.drift(architecture, v0)
    except NoProportionalLimit:
        drift = None
    healthy = share(base[0] > 0, 2 * wanted.confidence - 1)
    return Stability(wanted, healthy, median(base[1]), median(base[2]), drift, tuple(effects))


def _changes(architecture: Architecture) -> Iterator[tuple[str, float, Architecture]]:
    """Yield each parameter that the network has, the factor of its change, and the changed network."""
    for parameter in PARAMETERS:
        for factor in (STEP, 1 / STEP):
            changed = scaled(architecture, parameter, factor)
            if changed is not None:
                yield parameter, factor, changed
                break


def _difference(before: Floats, after: Floats) -> list[Estimate[float]]:
    """Return the differences in the mean of the first row and the medians of the others, with errors from batches."""
    summaries: tuple[Callable[[Floats], Any], ...] = (np.mean, np.median, np.median)
    out = []
    for summary, a, b in zip(summaries, before, after, strict=True):
        batches = zip(np.array_split(a, BATCHES), np.array_split(b, BATCHES), strict=True)
        differences = [summary(y) - summary(x) for x, y in batches]
        out.append(normal(float(summary(b) - summary(a)), float(np.std(differences, ddof=1) / np.sqrt(BATCHES))))
    return out


def scaled(architecture: Architecture, parameter: str, factor: float) -> Architecture | None:
    """Return the architecture with one of `PARAMETERS` multiplied.

    **Returns:** `None` if the architecture does not have the parameter, or if the changed value is not allowed.
    """
    if parameter == "depth":
        depth = max(1, round(architecture.depth * factor))
        return None if depth == architecture.depth else replace(architecture, depth=depth)
    try:
        block = tuple(_scaled_layer(layer, parameter, factor) for layer in architecture.block)
    except DefinitionError:
        return None
    return None if block == architecture.block else replace(architecture, block=block)


def _scaled_layer(layer: Layer, parameter: str, factor: float) -> Layer:
    """Return the layer with `"gamma"` or `"tau0"` multiplied, or unchanged if it has no such parameter."""
    if not isinstance(layer, Residual):
        return layer
    if parameter == "gamma":
        return replace(layer, scale=factor * layer.scale)
    if isinstance(layer.branch, ShapedAttention):
        return replace(layer, branch=replace(layer.branch, tau0=factor * layer.branch.tau0))
    return layer
