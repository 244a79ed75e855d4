"""Numbers of one layer, from the Gram matrix of its tokens: pure functions of arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..numerics.arrays import Floats
from ..observables import correlation, effective_rank, mean_absolute_correlation, mean_token_norm

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of |ρ| over pairs of tokens that are recorded."""


@dataclass(frozen=True)
class Measure:
    """A number of each layer.

    **Arguments:**

    - `title`: what it is, for tables and pictures.
    - `positive`: whether it is positive, so that ratios of layers and logarithms are natural.
    - `carried`: whether a layer inherits it from the one before, so that changes say where something happens.
    - `least`, `most`: its natural bounds.
    """

    title: str
    positive: bool
    carried: bool = True
    least: float = 0.0
    most: float = np.inf


MEASURES = {
    "token_norm": Measure("token norm tr V / m", positive=True),
    "mean_correlation": Measure("mean ρ", positive=False, least=-1.0, most=1.0),
    "mean_absolute_correlation": Measure("mean |ρ|", positive=False, most=1.0),
    "effective_rank": Measure("effective rank", positive=True, least=1.0),
    "stable_rank": Measure("stable rank", positive=True, least=1.0),
    "largest_eigenvalue": Measure("largest eigenvalue of V", positive=True),
    "smallest_eigenvalue": Measure("smallest eigenvalue of V", positive=False),
    "branch_share": Measure("branch over stream", positive=True, carried=False),
    "gradient_norm": Measure("gradient of the tokens, norm", positive=True),
    "gradient_correlation": Measure("gradient of the tokens, mean |ρ|", positive=False, most=1.0),
    "gradient_effective_rank": Measure("gradient of the tokens, effective rank", positive=True, least=1.0),
}
"""All numbers of a layer, by the name of their variable."""


def of_tokens(covariance: Floats) -> dict[str, Any]:
    """Return the numbers of the token covariance V = XXᵀ/n, (m, m), and the quantiles of |ρ|."""
    eigenvalues = np.maximum(np.linalg.eigvalsh(covariance), 0)
    largest = float(eigenvalues[-1])
    return {
        "token_norm": float(mean_token_norm(covariance)),
        "mean_correlation": mean_correlation(covariance),
        "mean_absolute_correlation": float(mean_absolute_correlation(covariance)),
        "effective_rank": float(effective_rank(eigenvalues)),
        "stable_rank": float(eigenvalues.sum() / largest) if largest > 0 else 0.0,
        "largest_eigenvalue": largest,
        "smallest_eigenvalue": float(eigenvalues[0]),
        "correlation_quantile": np.quantile(np.abs(pairs(covariance)), QUANTILES),
    }


def of_gradient(covariance: Floats) -> dict[str, Any]:
    """Return the numbers of GGᵀ/n, (m, m), with G the gradients of the tokens."""
    eigenvalues = np.maximum(np.linalg.eigvalsh(covariance), 0)
    return {
        "gradient_norm": float(np.sqrt(np.trace(covariance))),
        "gradient_correlation": float(mean_absolute_correlation(covariance)),
        "gradient_effective_rank": float(effective_rank(eigenvalues)),
    }


def pairs(covariance: Floats) -> NDArray[np.float64]:
    """Return ρ of all pairs of different tokens; one 0 where there is a single token."""
    m = covariance.shape[-1]
    if m == 1:
        return np.zeros(1)
    return np.asarray(correlation(covariance)[np.tril_indices(m, -1)])


def mean_correlation(covariance: Floats) -> float:
    """Return the mean of ρ over pairs of different tokens, 0 for a single token."""
    return float(pairs(covariance).mean())
