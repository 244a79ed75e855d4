"""Assertions of the tests: two ensembles have the same law, an array is a covariance, a mean is within its error."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy.stats import ks_2samp, norm

import shaped_transformer as st
from shaped_transformer.numerics.arrays import Floats

FALSE_ALARM = 1e-4
"""Probability with which a test of a true law fails: once in 10,000 runs."""

ROUNDING = 1e-30
"""Eigenvalues of V below this fraction of the largest are rounding errors, as X has a precision of 1e-16."""

STATISTICS: dict[str, Callable[[st.Ensemble], Floats]] = {
    "first token's norm": lambda e: e.covariance[:, -1, 0, 0],
    "last token's norm": lambda e: e.covariance[:, -1, -1, -1],
    "covariance of the first and last token": lambda e: e.covariance[:, -1, 0, -1],
    "correlation of the first two tokens": lambda e: e.correlation()[:, -1, 0, 1],
    "largest eigenvalue": lambda e: e.eigenvalues[:, -1, 0],
    "smallest eigenvalue that need not vanish": lambda e: np.maximum(
        e.eigenvalues[:, -1, _rank(e) - 1], ROUNDING * e.eigenvalues[:, -1, 0]
    ),
}


def _rank(ensemble: st.Ensemble) -> int:
    """Return the largest possible rank of V."""
    return min(ensemble.tokens, ensemble.architecture.width)


def different_laws(first: st.Ensemble, second: st.Ensemble) -> dict[str, float]:
    """Return the p-values of the statistics whose laws differ at the last layer, at the joint level `FALSE_ALARM`."""
    found = {}
    for name, statistic in STATISTICS.items():
        a, b = statistic(first), statistic(second)
        if np.ptp(a) < 1e-12 and np.ptp(b) < 1e-12 and np.allclose(a[0], b[0]):
            continue  # a normalisation makes it the same constant in both
        p = ks_2samp(a, b, method="asymp").pvalue
        if p < FALSE_ALARM / len(STATISTICS):
            found[name] = float(p)
    return found


def assert_same_law(first: st.Ensemble, second: st.Ensemble) -> None:
    """Assert that V, ρ and the extreme eigenvalues at the last layer have one law, by Kolmogorov–Smirnov tests."""
    differences = different_laws(first, second)
    assert not differences, f"{first.view} and {second.view} differ in law: p-values {differences}"


def assert_not_the_law(first: st.Ensemble, wrong: st.Ensemble) -> None:
    """Assert that the tests of `assert_same_law` notice a slightly wrong law: the companion of each such assertion."""
    with pytest.raises(AssertionError, match="differ in law"):
        assert_same_law(first, wrong)


def assert_mean(values: ArrayLike, expected: float) -> None:
    """Assert that the mean of independent values equals `expected` within its Monte Carlo error."""
    assert abs(z_score(values, expected)) < z_limit(), f"mean {np.mean(np.asarray(values)):.6g}, not {expected:.6g}"


def z_score(values: ArrayLike, expected: float) -> float:
    """Return the difference of the mean from `expected`, in standard errors."""
    x = np.asarray(values, dtype=np.float64)
    return float((x.mean() - expected) / (x.std(ddof=1) / np.sqrt(len(x))))


def z_limit(count: int = 1) -> float:
    """Return the z-score that the largest of `count` true means exceeds once in 10,000 runs."""
    return float(norm.isf(FALSE_ALARM / count / 2))


def assert_covariance(v: Floats) -> None:
    """Assert that matrices are finite, symmetric and positive semi-definite, up to rounding."""
    assert np.isfinite(v).all()
    np.testing.assert_allclose(v, v.swapaxes(-1, -2), rtol=1e-12, atol=0)
    values = np.linalg.eigvalsh(v)
    assert (values[..., 0] >= -1e-13 * values[..., -1]).all()
