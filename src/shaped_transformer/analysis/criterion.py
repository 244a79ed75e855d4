"""When a design counts as stable: the one criterion of `predict` and `advise` (a choice of this project)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..estimates import Estimate, share
from ..inputs import Covariance, rank
from ..observables import effective_rank, mean_absolute_correlation, mean_token_norm
from ..views.ensemble import Ensemble
from ..views.stopping import WINDOW, Window, check_window

PARALLEL = 0.9
"""Mean |ρ| above which the tokens count as collapsed into one direction."""


@dataclass(frozen=True)
class Criterion:
    """When a design counts as stable: at least a given share of its networks is healthy.

    A network is healthy if the eigenvalues of V stay in a window up to the last layer, the effective rank at the last
    layer is at least a given share of the input's, and the mean |ρ| over pairs there is at most 0.9, unless that of the
    input is larger. A choice of this project; the window is that of [ST].

    ```python
    strict = st.Criterion(probability=0.99, rank_share=0.8)
    chain = st.chain.sample(st.shaped_transformer(32, 8), st.inputs.equicorrelated(3, 0.2), samples=50, seed=0)
    print(strict.share(chain))
    ```

    **Arguments:**

    - `probability`: share of networks that must be healthy, default 0.95.
    - `rank_share`: share of the input's effective rank that a healthy network keeps, default 0.5.
    - `confidence`: confidence of each bound on the share of healthy networks, default 0.95.
    - `window`: eigenvalues (low, high) of V in units of the input's mean token norm, default (1e-4, 1e4): the window of
      [ST], cited from memory. Of a singular input only the rank(V0) largest eigenvalues are compared with the low end.
      If the input itself has one below the window, only the effective rank decides whether rank is lost.

    **Raises:** `InputError` for numbers out of range.
    """

    probability: float = 0.95
    rank_share: float = 0.5
    confidence: float = 0.95
    window: Window = WINDOW

    def __post_init__(self) -> None:
        for name, least in (("probability", 0.0), ("rank_share", 0.0), ("confidence", 0.5)):
            if not least < getattr(self, name) < 1:
                raise InputError(f"{name} must lie in ({least:g}, 1) (got {getattr(self, name):g})")
        low, high = check_window(self.window)
        if not low < 1 < high:
            raise InputError(
                f"window is in units of the input's mean token norm and must contain 1 (got {low:g} to {high:g})"
            )

    def stop(self, v0: Covariance) -> Window:
        """Return the window in the units of V: times the input's mean token norm.

        **Arguments:**

        - `v0`: the input's covariance, (m, m).

        **Returns:** its ends (low, high); low is 0 if the input is below the window.
        """
        low, high = (float(mean_token_norm(v0)) * end for end in self.window)
        smallest = np.linalg.eigvalsh(v0)[-rank(v0)]
        return (low if smallest >= low else 0.0), high

    def least_rank(self, v0: Covariance) -> float:
        """Return the smallest effective rank of a healthy network with this input, (m, m)."""
        return self.rank_share * rank_of(v0)

    def largest_correlation(self, v0: Covariance) -> float:
        """Return the largest mean |ρ| of a healthy network: 0.9, or 1 if the input, (m, m), exceeds it."""
        return PARALLEL if float(mean_absolute_correlation(v0)) <= PARALLEL else 1.0

    def exploded(self, ensemble: Ensemble) -> NDArray[np.bool_]:
        """Return which paths left the window upwards, at a recorded layer or where they were stopped, (samples,)."""
        above = np.any(ensemble.eigenvalues[..., 0] > self.stop(ensemble.initial)[1], axis=1)
        return np.asarray(above | (_stopped(ensemble) & ~self._below(ensemble)[:, -1]))

    def healthy(self, ensemble: Ensemble) -> NDArray[np.bool_]:
        """Return which paths stay in the window, keep their rank and do not become parallel, (samples,)."""
        below = np.any(self._below(ensemble), axis=1)
        kept = ensemble.effective_rank()[:, -1] >= self.least_rank(ensemble.initial)
        correlation = mean_absolute_correlation(ensemble.covariance[:, -1])
        kept &= correlation <= self.largest_correlation(ensemble.initial)
        return np.asarray(kept & ~below & ~self.exploded(ensemble) & ~_stopped(ensemble))

    def share(self, ensemble: Ensemble) -> Estimate[float]:
        """Return the share of healthy paths; each end of its interval is a one-sided bound with `confidence`."""
        return share(self.healthy(ensemble), 2 * self.confidence - 1)

    def _below(self, ensemble: Ensemble) -> NDArray[np.bool_]:
        """Whether an eigenvalue that the input has is below the window, (samples, records)."""
        low = self.stop(ensemble.initial)[0]
        return np.asarray(ensemble.eigenvalues[..., rank(ensemble.initial) - 1] < low)


def rank_of(v0: Covariance) -> float:
    """Return the effective rank of an input, (m, m)."""
    return float(effective_rank(np.maximum(np.linalg.eigvalsh(v0)[::-1], 0)))


def _stopped(ensemble: Ensemble) -> NDArray[np.bool_]:
    return np.asarray(ensemble.stopped <= ensemble.architecture.depth)
