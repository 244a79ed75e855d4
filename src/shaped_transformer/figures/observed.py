"""What figures look at in a view's draws, and the numbers that they report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import statistics
from ..analysis import comparison
from ..design.architecture import Architecture
from ..views.by_name import VIEWS
from ..views.ensemble import Ensemble
from .pieces import Arrays

OBSERVED: dict[str, Callable[[Ensemble], Any]] = comparison.STATISTICS | {
    "mean |rho|": lambda e: statistics.mean_absolute_correlation(e.covariance),
    "norm of the last token": lambda e: e.covariance[..., -1, -1],
    "eigenvalues": lambda e: e.eigenvalues,
    "stopped": lambda e: e.stopped[:, None],
}
"""Statistics by name, each (samples, records, …); `stopped` is one number per sample."""
LEVELS = (0.05, 0.5, 0.95)
"""Quantiles of every band."""


def observe(
    view: str,
    architecture: Architecture,
    v0: ArrayLike,
    samples: int,
    seed: int,
    names: Sequence[str],
    **options: Any,
) -> Arrays:
    """Draw a view and return the statistics named, each (samples, records, …), and `depth`, (records,).

    **Arguments:** as of the views' `sample`, whose `record`, `stop` and `steps` are the `options`; `record` is 1, the
    last layer, if left out.
    """
    drawn = VIEWS[view].sample(architecture, v0, samples, seed, **({"record": 1} | options))
    return {name: np.asarray(OBSERVED[name](drawn)) for name in names} | {"depth": np.asarray(drawn.depth)}


@dataclass(frozen=True)
class Number:
    """A number that a figure reports, with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def median(name: str, values: ArrayLike) -> Number:
    """Return the median of independent draws."""
    return Number(name, *statistics.median(np.asarray(values, dtype=np.float64)))


def share(name: str, events: ArrayLike) -> Number:
    """Return a share with its Wilson interval."""
    found = statistics.share(events)
    return Number(name, found.value, found.low, found.high)


def distance(name: str, first: ArrayLike, second: ArrayLike) -> Number:
    """Return the Kolmogorov–Smirnov distance of two laws, from draws of each.

    The interval is that of Dvoretzky, Kiefer, Wolfowitz and Massart for each of the two distribution functions, at
    97.5 %: conservative, and 0 belongs to it where the laws cannot be told apart by it.
    """
    found = statistics.two_sample(first, second).distance
    error = sum(np.sqrt(np.log(2 / 0.025) / (2 * len(np.asarray(draws)))) for draws in (first, second))
    return Number(name, found, max(0.0, found - error), min(1.0, found + error))
