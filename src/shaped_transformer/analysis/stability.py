"""How stable a design is at initialisation, and what would change it (a result of this project)."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import check_count
from ..design.architecture import Architecture
from ..design.layers import Layer, Residual, ShapedAttention
from ..errors import DefinitionError, NoProportionalLimit
from ..estimates import Estimate, median, normal, share
from ..numerics.arrays import Floats
from ..observables import mean_absolute_correlation
from ..views import chain, sde
from ..views.ensemble import Ensemble
from ..views.stopping import WINDOW, Window

STEP = 1.1
"""Factor by which a parameter is changed to see its effect: 10 % more."""
BATCHES = 16
"""Batches of samples whose scatter gives the errors of the effects."""
PARAMETERS = ("gamma", "tau0", "depth")


@dataclass(frozen=True)
class Effect:
    """What a change of one parameter does to the three numbers of `Stability`: differences with standard errors.

    **Attributes:** `parameter`: `"gamma"` (the scale of every residual layer), `"tau0"` (of every shaped attention) or
    `"depth"`; `factor`: by which it was multiplied, 1.1 or, where γ would exceed 1, 1/1.1; `left`, `correlation`,
    `rank`: (difference, standard error).
    """

    parameter: str
    factor: float
    left: Estimate[float]
    correlation: Estimate[float]
    rank: Estimate[float]


@dataclass(frozen=True, eq=False)
class Stability:
    """How stable a design is.

    **Attributes:**

    - `window`: eigenvalues (low, high) of V between which a path counts as alive.
    - `left`: probability that a path has left the window by the last layer, with its Wilson interval at 95 %.
    - `correlation`, `rank`: medians of the mean |ρ| over pairs and of the effective rank at the last layer (or where
      the path left), each (value, low, high) at 95 %.
    - `drift`: b(V0), the expected change of V per unit of depth/width, (m, m); `None` where there is no limit.
    - `effects`: of 10 % more of each parameter that the architecture has.
    """

    window: Window
    left: Estimate[float]
    correlation: Estimate[float]
    rank: Estimate[float]
    drift: Floats | None
    effects: tuple[Effect, ...]

    @property
    def growth(self) -> float | None:
        """Mean of the diagonal of `drift`: the rate at which the mean token norm begins to grow."""
        return None if self.drift is None else float(np.mean(np.diagonal(self.drift)))

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        return {
            "window": list(self.window),
            "left": asdict(self.left),
            "correlation": asdict(self.correlation),
            "rank": asdict(self.rank),
            "drift": None if self.drift is None else self.drift.tolist(),
            "effects": [asdict(effect) for effect in self.effects],
        }


def stability(
    architecture: Architecture,
    v0: ArrayLike,
    *,
    samples: int = 4096,
    seed: int = 0,
    window: Window = WINDOW,
    workers: int | None = None,
) -> Stability:
    """Say how stable a design is at initialisation, by the exact chain, and what 10 % of each parameter would change.

    **Arguments:**

    - `architecture`, `v0`: the network and its initial covariance, (m, m).
    - `samples`: paths; the errors of all numbers fall as its square root. At least 16.
    - `seed`: of all runs: the changed designs are drawn from the same random numbers, so that effects much smaller
      than the scatter of the numbers themselves are seen.
    - `window`: eigenvalues of V between which a path is alive, default (1e-4, 1e4).
    - `workers`: threads, default all cores.

    **Returns:** a `Stability`.

    **Raises:** `InputError` for arguments out of range.
    """
    check_count(samples, "samples", least=BATCHES)

    def draw(arch: Architecture) -> Floats:
        e = chain.sample(arch, v0, samples, seed, record=1, stop=window, workers=workers)
        return np.stack([e.stopped <= arch.depth, _correlation(e), e.effective_rank()[:, -1]])

    base = draw(architecture)
    effects = []
    for parameter in PARAMETERS:
        for factor in (STEP, 1 / STEP):
            changed = scaled(architecture, parameter, factor)
            if changed is not None:
                left, correlation, rank = _difference(base, draw(changed))
                effects.append(Effect(parameter, factor, left, correlation, rank))
                break
    try:
        drift = sde.drift(architecture, v0)
    except NoProportionalLimit:
        drift = None
    return Stability(window, share(base[0] > 0), median(base[1]), median(base[2]), drift, tuple(effects))


def _correlation(e: Ensemble) -> Floats:
    return mean_absolute_correlation(e.covariance[:, -1])


def _difference(before: Floats, after: Floats) -> list[Estimate[float]]:
    """Return how the mean of the first row and the medians of the others changed, with errors from batches."""
    summary: tuple[Callable[[Floats], Any], ...] = (np.mean, np.median, np.median)
    out = []
    for reduce, a, b in zip(summary, before, after, strict=True):
        batches = [
            reduce(y) - reduce(x) for x, y in zip(np.array_split(a, BATCHES), np.array_split(b, BATCHES), strict=True)
        ]
        out.append(normal(float(reduce(b) - reduce(a)), float(np.std(batches, ddof=1) / np.sqrt(BATCHES))))
    return out


def scaled(architecture: Architecture, parameter: str, factor: float) -> Architecture | None:
    """Return the architecture with one of `PARAMETERS` multiplied, or `None` where it has none or cannot have that."""
    if parameter == "depth":
        depth = max(1, round(architecture.depth * factor))
        return None if depth == architecture.depth else replace(architecture, depth=depth)
    try:
        block = tuple(_scaled_layer(layer, parameter, factor) for layer in architecture.block)
    except DefinitionError:
        return None
    return None if block == architecture.block else replace(architecture, block=block)


def _scaled_layer(layer: Layer, parameter: str, factor: float) -> Layer:
    if not isinstance(layer, Residual):
        return layer
    if parameter == "gamma":
        return replace(layer, scale=factor * layer.scale)
    if isinstance(layer.branch, ShapedAttention):
        return replace(layer, branch=replace(layer.branch, tau0=factor * layer.branch.tau0))
    return layer
