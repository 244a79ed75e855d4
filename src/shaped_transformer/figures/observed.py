"""How figures draw the views and read observables off the draws."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..design.architecture import Architecture
from ..views.by_name import VIEWS
from .pieces import Arrays


def counts(samples: int, network_samples: int) -> dict[str, int]:
    """Return how many samples each view draws: real networks cost far more than chain and SDE."""
    return {view: network_samples if view == "network" else samples for view in VIEWS}


def observe(
    view: str,
    architecture: Architecture,
    v0: ArrayLike,
    samples: int,
    seed: int,
    names: Sequence[str],
    **options: Any,
) -> Arrays:
    """Draw a view and read observables off the draws.

    **Arguments:**

    - `view`: `"network"`, `"chain"` or `"sde"`.
    - `architecture`, `v0`, `samples`, `seed`: as for the view's `sample`.
    - `names`: of the observables.
    - `options`: further arguments of `sample`: `record` (default 1, the last layer), `stop`, `steps`.

    **Returns:** each observable, (samples, records, …); `depth`, (records,); `stopped`, (samples,).
    """
    drawn = VIEWS[view].sample(architecture, v0, samples, seed, **({"record": 1} | options))
    found = {name: drawn.observe(name) for name in names}
    return found | {"depth": np.asarray(drawn.depth), "stopped": drawn.stopped}
