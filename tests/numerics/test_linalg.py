"""Linear algebra: results against their definitions and at the limits of double precision."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy.special import expit
from scipy.stats import chi2, kstest

from shaped_transformer.numerics import linalg
from shaped_transformer.numerics.arrays import Floats
from shaped_transformer.numerics.draws import Draws
from shaped_transformer.views.stopping import outside_window

sizes = some.integers(1, 7)


@given(sizes, sizes, some.integers(0, 100))
def test_lq_is_a_lower_factor_of_the_same_gram_matrix(rows: int, columns: int, seed: int) -> None:
    a = np.random.default_rng(seed).standard_normal((3, rows, columns))
    factor = linalg.lq(a)
    assert factor.shape == (3, rows, min(rows, columns))
    np.testing.assert_allclose(linalg.gram(factor), linalg.gram(a), atol=1e-12)
    np.testing.assert_allclose(factor, np.tril(factor), atol=0)


def test_lq_keeps_eigenvalues_far_below_the_rounding_of_a_gram_matrix() -> None:
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))
    a = q * np.array([1, 1e-5, 1e-10, 1e-13])
    values = linalg.squared_singular_values(linalg.lq(a[None]))[0]
    np.testing.assert_allclose(values[:3], [1, 1e-10, 1e-20], rtol=1e-4)
    assert 1e-27 < values[3] < 1e-25


@given(sizes, some.integers(0, 7), some.integers(0, 100))
def test_semidefinite_factor_takes_any_rank(size: int, rank: int, seed: int) -> None:
    a = np.random.default_rng(seed).standard_normal((4, size, rank))
    v = linalg.gram(a)
    factor = linalg.semidefinite_factor(v)
    assert np.isfinite(factor).all()
    np.testing.assert_allclose(linalg.gram(factor), v, atol=1e-6 if rank < size else 1e-12)


def test_masked_softmax_does_not_overflow_for_large_logits() -> None:
    logits = np.array([[[1e4, -1e4], [3.0, 5.0]]])
    weights = linalg.masked_softmax(logits, 1.0, np.tri(2, dtype=bool), np.zeros((2, 2)))
    np.testing.assert_allclose(weights[0], [[1.0, 0.0], [float(expit(-2)), float(expit(2))]])


def test_unit_rows_neither_overflow_nor_divide_by_zero() -> None:
    rows = linalg.unit_rows(np.array([[1e-200, 1e-200], [0, 0], [1e200, 0]]), 2.0)
    np.testing.assert_allclose(rows, [[2.0**0.5, 2.0**0.5], [0.0, 0.0], [2.0, 0.0]])


ROWS = 4


@pytest.fixture(scope="module", params=[2, 4, 9, 6.5])
def wishart(request: pytest.FixtureRequest) -> tuple[float, Floats]:
    """Degrees of freedom p, and T·Tᵀ of 20,000 Bartlett factors with k = 4 rows."""
    factor = Draws(0, 1, 0, 20_000).bartlett(ROWS, request.param)
    assert factor.shape == (20_000, ROWS, min(ROWS, int(request.param)))
    return request.param, linalg.gram(factor)


def test_first_entry_of_a_wishart_matrix_is_chi_squared(wishart: tuple[float, Floats]) -> None:
    freedom, w = wishart
    assert kstest(w[:, 0, 0], chi2(freedom).cdf).pvalue > 1e-4


def test_trace_of_a_wishart_matrix_is_chi_squared(wishart: tuple[float, Floats]) -> None:
    """With kp degrees of freedom, and 10 % more are noticed."""
    freedom, w = wishart
    trace = np.trace(w, axis1=1, axis2=2)
    assert kstest(trace, chi2(ROWS * freedom).cdf).pvalue > 1e-4
    assert kstest(trace, chi2(ROWS * freedom * 1.1).cdf).pvalue < 1e-4


def test_last_schur_complement_of_a_wishart_matrix_is_chi_squared(wishart: tuple[float, Floats]) -> None:
    """With p − k + 1 degrees of freedom, where the matrix is invertible, and 10 % more are noticed."""
    freedom, w = wishart
    if freedom > ROWS:
        last = 1 / np.linalg.inv(w)[:, -1, -1]
        assert kstest(last, chi2(freedom - ROWS + 1).cdf).pvalue > 1e-4
        assert kstest(last, chi2(1.1 * (freedom - ROWS + 1)).cdf).pvalue < 1e-4


def test_frame_has_orthonormal_rows_in_random_directions() -> None:
    frame = Draws(0, 0, 0, 5000).frame(2, 5)
    np.testing.assert_allclose(linalg.gram(frame), np.broadcast_to(np.eye(2), (5000, 2, 2)), atol=1e-12)
    assert np.abs(frame.mean(axis=0)).max() < 0.03  # entries have variance 1/5: this is five standard errors
    np.testing.assert_allclose((frame**2).mean(axis=0), 0.2, atol=0.02)


@given(some.integers(1, 5), some.integers(0, 4), some.floats(0, 2), some.floats(0.1, 4), some.integers(0, 50))
def test_a_sample_is_outside_the_window_exactly_if_an_eigenvalue_is(
    size: int, missing: int, low: float, width: float, seed: int
) -> None:
    rank = max(1, size - missing)
    factor = np.random.default_rng(seed).standard_normal((40, size, size + 1))
    values = np.linalg.eigvalsh(linalg.gram(factor))
    want = (values[:, -rank] < low - 1e-12) | (values[:, -1] > low + width)
    for layout in (factor, linalg.sample_last(factor)):
        np.testing.assert_array_equal(outside_window(layout, (low, low + width), rank), want)


@pytest.mark.parametrize("last", [False, True])
def test_a_singular_covariance_is_outside_a_window_above_zero(last: bool) -> None:
    factor = np.stack([np.eye(3), np.diag([1.0, 0.0, 1.0]), np.tri(3)])
    factor = linalg.sample_last(factor) if last else factor
    np.testing.assert_array_equal(outside_window(factor, (1e-9, 10.0), 3), [False, True, False])
    np.testing.assert_array_equal(outside_window(factor, (0.0, 10.0), 3), [False, False, False])
