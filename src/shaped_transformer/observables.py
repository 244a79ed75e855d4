"""What is read off draws of the token covariance V: pure functions of arrays, and the one registry of observables.

To add an observable, add one entry to the registry: `Ensemble.quantiles`, comparisons, sweeps and figures can then use
it by its name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .numerics import linalg
from .numerics.arrays import Floats

RESOLUTION = {"network": linalg.ROUNDING, "chain": linalg.ROUNDING, "sde": 1e-14}
"""Smallest ratio of eigenvalues that a view resolves; the SDE's kernels are computed from V, not from its factor."""
ZERO = 1e-14
"""Correlations below this are rounding errors around 0."""


def correlation(covariance: Floats) -> Floats:
    """Return ρ^{αβ} = V^{αβ}/√(V^{αα}V^{ββ}), inside [−1, 1]; 0 for a token of norm 0 (theory §1).

    ```python
    print(st.statistics.correlation(st.inputs.equicorrelated(2, 0.3, variance=4.0))[0, 1])  # 0.3
    ```

    **Arguments:**

    - `covariance`: V, (…, m, m).

    **Returns:** (…, m, m).
    """
    norm = np.sqrt(np.maximum(linalg.diagonal(covariance), 0))
    first = np.divide(covariance, norm[..., :, None], out=np.zeros_like(covariance), where=norm[..., :, None] > 0)
    rho = np.divide(first, norm[..., None, :], out=np.zeros_like(covariance), where=norm[..., None, :] > 0)
    return np.clip(rho, -1, 1)


def mean_token_norm(covariance: Floats) -> Floats:
    """Return tr V / m, the mean over tokens of ‖x‖²/n: (…, m, m) → (…)."""
    return np.asarray(np.mean(linalg.diagonal(covariance), axis=-1))


def mean_absolute_correlation(covariance: Floats) -> Floats:
    """Return the mean of |ρ^{αβ}| over pairs α ≠ β: (…, m, m) → (…); 0 for one token."""
    m = covariance.shape[-1]
    if m == 1:
        return np.zeros(covariance.shape[:-2])
    pairs = np.tril_indices(m, -1)
    return np.asarray(np.mean(np.abs(correlation(covariance)[..., *pairs]), axis=-1))


def effective_rank(eigenvalues: Floats) -> Floats:
    """Return exp(−Σ p log p), p = eigenvalues / their sum: (…, m) → (…).

    It is 1 when all tokens are parallel, and m when they are orthonormal. A covariance of zero has effective rank 1.
    """
    total = np.sum(eigenvalues, axis=-1, keepdims=True)
    p = np.divide(eigenvalues, total, out=np.zeros_like(eigenvalues), where=total > 0)
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    return np.asarray(np.exp(-np.sum(p * logs, axis=-1)))


def smallest_eigenvalue(eigenvalues: Floats, resolution: float) -> Floats:
    """Return the smallest eigenvalue, or 0 where it lies below `resolution` times the largest: (…, m) → (…)."""
    return np.where(eigenvalues[..., -1] < resolution * eigenvalues[..., 0], 0.0, eigenvalues[..., -1])


def log_determinant(eigenvalues: Floats) -> Floats:
    """Return log det V: (…, m) → (…).

    **Raises:** `InputError` where V is singular as far as float64 factors can tell.
    """
    if (eigenvalues[..., -1] <= linalg.ROUNDING * eigenvalues[..., 0]).any():
        raise InputError(
            "V is singular in some samples, so that its log-determinant is minus infinity: use effective_rank(), "
            "or an input of full rank with at most as many tokens as width"
        )
    return np.asarray(np.sum(np.log(eigenvalues), axis=-1))


class Paths(Protocol):
    """Draws of V at some layers, as an `Ensemble` holds them."""

    @property
    def covariance(self) -> Floats:
        """V, (samples, records, m, m)."""
        ...

    @property
    def eigenvalues(self) -> Floats:
        """Of V, largest first, (samples, records, m)."""
        ...

    @property
    def stopped(self) -> NDArray[np.int64]:
        """First layer at which a path left the window, (samples,)."""
        ...

    @property
    def depth(self) -> NDArray[Any]:
        """Recorded layers, (records,)."""
        ...

    @property
    def time(self) -> Floats:
        """Layer over width, (records,)."""
        ...

    @property
    def view(self) -> str:
        """`"network"`, `"chain"` or `"sde"`."""
        ...


@dataclass(frozen=True)
class Observable:
    """A quantity that is read off draws of V.

    **Attributes:**

    - `name`: its key in datasets, sweeps and `Ensemble.quantiles`.
    - `title`: for axes and legends.
    - `short`: for the columns of tables.
    - `of`: the function, draws → (samples, records), or (samples, records, …) where `dims` has more.
    - `unit`: of the numbers, default none.
    - `scale`: `"linear"` (default) or `"log"`: how an axis shows it.
    - `tokens`: how many tokens it needs, default 1.
    - `dims`: further dimensions, default none: one number per sample and record.
    """

    name: str
    title: str
    short: str
    of: Callable[[Paths], Floats]
    unit: str = ""
    scale: Literal["linear", "log"] = "linear"
    tokens: int = 1
    dims: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The title with the unit, for an axis."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


def _rho12(paths: Paths) -> Floats:
    rho = correlation(paths.covariance[..., :2, :2])[..., 0, 1]
    return np.where(np.abs(rho) < ZERO, 0.0, rho)


def _stopping_time(paths: Paths) -> Floats:
    """The time up to which each path was followed, at most that of the record."""
    scale = np.divide(paths.time, paths.depth, out=np.zeros(len(paths.depth)), where=paths.depth > 0)
    return np.minimum(paths.stopped[:, None], paths.depth) * scale


def _v12(paths: Paths) -> Floats:
    return np.where(_rho12(paths) == 0, 0.0, paths.covariance[..., 0, 1])


def _smallest(paths: Paths) -> Floats:
    return smallest_eigenvalue(paths.eigenvalues, RESOLUTION[paths.view])


_ALL = (
    Observable(
        "mean_token_norm", "mean token norm tr V/m", "norm", lambda e: mean_token_norm(e.covariance), scale="log"
    ),
    Observable("V11", "norm of token 1, V₁₁", "V11", lambda e: e.covariance[..., 0, 0], scale="log"),
    Observable("V12", "covariance of tokens 1 and 2, V₁₂", "V12", _v12, tokens=2),
    Observable("rho12", "correlation of tokens 1 and 2, ρ₁₂", "rho12", _rho12, tokens=2),
    Observable("smallest_eigenvalue", "smallest eigenvalue of V", "λ min", _smallest, scale="log"),
    Observable("largest_eigenvalue", "largest eigenvalue of V", "λ max", lambda e: e.eigenvalues[..., 0], scale="log"),
    Observable("effective_rank", "effective rank", "rank", lambda e: effective_rank(e.eigenvalues)),
    Observable(
        "mean_absolute_correlation",
        "mean |ρ| over pairs",
        "|rho|",
        lambda e: mean_absolute_correlation(e.covariance),
    ),
    Observable("last_token_norm", "norm of the last token", "last", lambda e: e.covariance[..., -1, -1], scale="log"),
    Observable("log_determinant", "log det V", "log det", lambda e: log_determinant(e.eigenvalues)),
    Observable("stopping_time", "stopping time", "stopped", _stopping_time, unit="depth / width"),
    Observable("covariance", "V", "V", lambda e: e.covariance, dims=("token", "other_token")),
    Observable("correlation", "ρ", "rho", lambda e: correlation(e.covariance), dims=("token", "other_token")),
    Observable("eigenvalues", "eigenvalues of V", "λ", lambda e: e.eigenvalues, scale="log", dims=("token",)),
)
OBSERVABLES = {observable.name: observable for observable in _ALL}
"""Every observable by name."""
