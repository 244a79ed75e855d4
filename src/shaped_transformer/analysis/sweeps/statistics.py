"""What a sweep keeps of each point."""

from collections.abc import Callable

import numpy as np

from ... import statistics
from ...numerics.arrays import Floats
from ...views.ensemble import Ensemble

LEVELS = (0.05, 0.5, 0.95)
"""Quantiles that are kept of each statistic."""
STATISTICS: dict[str, Callable[[Ensemble], Floats]] = {
    "correlation": lambda e: statistics.mean_absolute_correlation(e.covariance[:, -1]),
    "effective_rank": lambda e: e.effective_rank()[:, -1],
    "mean_token_norm": lambda e: e.mean_token_norm()[:, -1],
    "largest_eigenvalue": lambda e: e.eigenvalues[:, -1, 0],
    "smallest_eigenvalue": lambda e: e.eigenvalues[:, -1, -1],
    "stopping_time": lambda e: np.minimum(e.stopped, e.architecture.depth) / e.architecture.width,
}
"""What a sweep may keep, at the last layer (or where a path left the window), one number per sample."""
