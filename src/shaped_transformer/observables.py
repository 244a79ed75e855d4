"""Observables of the token covariance V: pure functions of arrays, and the one registry of observables.

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
"""Smallest ratio of eigenvalues that a view resolves. The SDE computes from V, the other views from a factor of V."""
ZERO = 1e-14
"""A correlation below this is a rounding error of 0."""


def correlation(covariance: Floats) -> Floats:
    """Return ρ^{αβ} = V^{αβ}/√(V^{αα}V^{ββ}), clipped to [−1, 1]; 0 for a token of norm 0 (theory §1).

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
    """Return tr V / m, the mean over tokens of ‖x‖²/n (theory §1).

    ```python
    print(st.statistics.mean_token_norm(st.inputs.equicorrelated(2, 0.3, variance=4.0)))  # 4.0
    ```

    **Arguments:**

    - `covariance`: V, (…, m, m).

    **Returns:** (…).
    """
    return np.asarray(np.mean(linalg.diagonal(covariance), axis=-1))


def mean_absolute_correlation(covariance: Floats) -> Floats:
    """Return the mean of |ρ^{αβ}| over pairs α ≠ β; 0 for one token.

    ```python
    print(st.statistics.mean_absolute_correlation(st.inputs.equicorrelated(4, -0.2)))  # 0.2
    ```

    **Arguments:**

    - `covariance`: V, (…, m, m).

    **Returns:** (…).
    """
    m = covariance.shape[-1]
    if m == 1:
        return np.zeros(covariance.shape[:-2])
    pairs = np.tril_indices(m, -1)
    return np.asarray(np.mean(np.abs(correlation(covariance)[..., *pairs]), axis=-1))


def effective_rank(eigenvalues: Floats) -> Floats:
    """Return the effective rank exp(−Σ p log p), with p the eigenvalues over their sum.

    It is 1 if all tokens are parallel, and m if they are orthonormal. A covariance of zero has effective rank 1.

    ```python
    print(st.statistics.effective_rank(np.array([1.0, 1.0, 0.0])))  # 2.0
    ```

    **Arguments:**

    - `eigenvalues`: of V, (…, m).

    **Returns:** (…).
    """
    total = np.sum(eigenvalues, axis=-1, keepdims=True)
    p = np.divide(eigenvalues, total, out=np.zeros_like(eigenvalues), where=total > 0)
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    return np.asarray(np.exp(-np.sum(p * logs, axis=-1)))


def smallest_eigenvalue(eigenvalues: Floats, resolution: float) -> Floats:
    """Return the smallest eigenvalue, or 0 where it is below `resolution` times the largest: (…, m) → (…)."""
    return np.where(eigenvalues[..., -1] < resolution * eigenvalues[..., 0], 0.0, eigenvalues[..., -1])


def log_determinant(eigenvalues: Floats) -> Floats:
    """Return log det V: (…, m) → (…).

    **Raises:** `InputError` if V is singular to the precision of its factor in float64.
    """
    if (eigenvalues[..., -1] <= linalg.ROUNDING * eigenvalues[..., 0]).any():
        raise InputError(
            "V is singular in some samples, so that its log-determinant is minus infinity: use effective_rank(), "
            "or an input of full rank with at most as many tokens as width"
        )
    return np.asarray(np.sum(np.log(eigenvalues), axis=-1))


class CovarianceSamples(Protocol):
    """Samples of V at the recorded layers, as an `Ensemble` stores them."""

    @property
    def covariance(self) -> Floats:
        """V, (samples, records, m, m)."""
        ...

    @property
    def eigenvalues(self) -> Floats:
        """Eigenvalues of V, largest first, (samples, records, m)."""
        ...

    @property
    def stopped(self) -> NDArray[np.int64]:
        """First layer at which a path left the window, depth + 1 if it never did, (samples,)."""
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
    """A quantity that is computed from samples of V.

    ```python
    rank = st.statistics.OBSERVABLES["effective_rank"]
    print(rank.label, rank.scale)
    ```

    **Attributes:**

    - `name`: key in datasets, sweeps and `Ensemble.observe`.
    - `title`: name on axes and in legends.
    - `of`: function from an `Ensemble` to an array (samples, records), with the further dimensions `dims` if there are
      any.
    - `unit`: unit of the numbers, default none.
    - `scale`: scale of an axis, `"linear"` (default) or `"log"`.
    - `tokens`: smallest number of tokens for which it is defined, default 1.
    - `dims`: names of further dimensions, default none: one number per sample and record.
    """

    name: str
    title: str
    of: Callable[[CovarianceSamples], Floats]
    unit: str = ""
    scale: Literal["linear", "log"] = "linear"
    tokens: int = 1
    dims: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The name in words, as tables show it."""
        return self.name.replace("_", " ")

    @property
    def label(self) -> str:
        """The title with the unit, as an axis shows it."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


def _rho12(e: CovarianceSamples) -> Floats:
    """Return ρ₁₂, exactly 0 where only rounding errors are left."""
    rho = correlation(e.covariance[..., :2, :2])[..., 0, 1]
    return np.where(np.abs(rho) < ZERO, 0.0, rho)


def _stopping_time(e: CovarianceSamples) -> Floats:
    """Return the time at which each path left the window, at most the time of the record."""
    scale = np.divide(e.time, e.depth, out=np.zeros(len(e.depth)), where=e.depth > 0)
    return np.minimum(e.stopped[:, None], e.depth) * scale


def _v12(e: CovarianceSamples) -> Floats:
    """Return V₁₂, exactly 0 where ρ₁₂ is."""
    return np.where(_rho12(e) == 0, 0.0, e.covariance[..., 0, 1])


def _smallest(e: CovarianceSamples) -> Floats:
    """Return the smallest eigenvalue that the view resolves."""
    return smallest_eigenvalue(e.eigenvalues, RESOLUTION[e.view])


_ALL = (
    Observable("mean_token_norm", "mean token norm tr V/m", lambda e: mean_token_norm(e.covariance), scale="log"),
    Observable("V11", "norm of token 1, V₁₁", lambda e: e.covariance[..., 0, 0], scale="log"),
    Observable("V12", "covariance of tokens 1 and 2, V₁₂", _v12, tokens=2),
    Observable("rho12", "correlation of tokens 1 and 2, ρ₁₂", _rho12, tokens=2),
    Observable("smallest_eigenvalue", "smallest eigenvalue of V", _smallest, scale="log"),
    Observable("largest_eigenvalue", "largest eigenvalue of V", lambda e: e.eigenvalues[..., 0], scale="log"),
    Observable("effective_rank", "effective rank", lambda e: effective_rank(e.eigenvalues)),
    Observable(
        "mean_absolute_correlation",
        "mean |ρ| over pairs",
        lambda e: mean_absolute_correlation(e.covariance),
    ),
    Observable("last_token_norm", "norm of the last token", lambda e: e.covariance[..., -1, -1], scale="log"),
    Observable("log_determinant", "log det V", lambda e: log_determinant(e.eigenvalues)),
    Observable("stopping_time", "stopping time", _stopping_time, unit="depth / width"),
    Observable("covariance", "V", lambda e: e.covariance, dims=("token", "other_token")),
    Observable("correlation", "ρ", lambda e: correlation(e.covariance), dims=("token", "other_token")),
    Observable("eigenvalues", "eigenvalues of V", lambda e: e.eigenvalues, scale="log", dims=("token",)),
)
OBSERVABLES = {observable.name: observable for observable in _ALL}
"""Every observable by name."""
