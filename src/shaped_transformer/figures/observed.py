"""Observables of the views, as figures sample and summarise them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..design.architecture import Architecture
from ..estimates import BOUNDS, LEVELS, median, to_array
from ..numerics.arrays import Floats
from ..views.by_name import VIEWS
from .pieces import Arrays

QUANTILES = {"quantile": list(LEVELS)}
"""Coordinate of a dataset's quantiles."""
INTERVALS = {"bound": list(BOUNDS)}
"""Coordinate of a dataset's estimates."""


def samples_by_view(samples: int, network_samples: int) -> dict[str, int]:
    """Return the number of samples of each view; real networks, which cost far more, have a number of their own."""
    return {view: network_samples if view == "network" else samples for view in VIEWS}


def draw_observables(
    view: str,
    architecture: Architecture,
    v0: ArrayLike,
    samples: int,
    seed: int,
    names: Sequence[str],
    **options: Any,
) -> Arrays:
    """Sample a view, and return observables of the samples.

    **Arguments:**

    - `view`: `"network"`, `"chain"` or `"sde"`.
    - `architecture`, `v0`, `samples`, `seed`: as for the view's `sample`.
    - `names`: names of the observables.
    - `options`: further arguments of `sample`: `record` (default 1, the last layer), `stop`, `steps`.

    **Returns:** each observable, (samples, records, …); `depth`, (records,); `stopped`, (samples,).
    """
    ensemble = VIEWS[view].sample(architecture, v0, samples, seed, **({"record": 1} | options))
    found = {name: ensemble.observe(name) for name in names}
    return found | {"depth": np.asarray(ensemble.depth), "stopped": ensemble.stopped}


def quantiles_along(dim: str, samples: Iterable[Floats]) -> tuple[tuple[str, str], Floats]:
    """Return the quantiles of samples at each point of a dimension, as a variable of a dataset."""
    return (dim, "quantile"), np.array([np.quantile(x, LEVELS) for x in samples])


def medians_along(dim: str, samples: Iterable[Floats]) -> tuple[tuple[str, str], Floats]:
    """Return the medians of samples with their intervals at each point of a dimension, as a variable of a dataset."""
    return (dim, "bound"), to_array(median(x) for x in samples)
