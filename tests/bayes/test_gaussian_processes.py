"""Gaussian processes with known features, against SciPy's densities and the textbook's formulas."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal

import shaped_transformer as st
from shaped_transformer.bayes import gaussian
from shaped_transformer.bayes.evidence import Search, Weighted

RNG = np.random.default_rng(0)
SCALE, NOISE = 1.7, 0.3
SHAPES = pytest.mark.parametrize(("points", "width"), [(4, 9), (9, 4), (5, 5), (1, 3), (3, 1)])


def problem(points: int, width: int, outputs: int = 2) -> tuple[np.ndarray, ...]:
    features, tests = RNG.standard_normal((3, points, width)), RNG.standard_normal((3, 2, width))
    return features, tests, RNG.standard_normal((points, outputs))


@SHAPES
def test_likelihoods_are_those_of_scipy(points: int, width: int) -> None:
    features, _, y = problem(points, width)
    found = gaussian.log_likelihood(features, y, SCALE, NOISE)
    covariances = SCALE * features @ features.swapaxes(1, 2) + NOISE * np.eye(points)
    expected = [multivariate_normal.logpdf(y.T, cov=c).sum() for c in covariances]
    assert_allclose(found, expected, rtol=1e-10)
    assert_allclose(gaussian.Spectra.of(features, y).log_likelihood(SCALE, NOISE), expected, rtol=1e-9)


@SHAPES
def test_slopes_are_those_of_differences(points: int, width: int) -> None:
    features, _, y = problem(points, width)
    spectra, h = gaussian.Spectra.of(features, y), 1e-5
    for i, (up, down) in enumerate([((np.exp(h), 1), (np.exp(-h), 1)), ((1, np.exp(h)), (1, np.exp(-h)))]):
        ends = [spectra.log_likelihood(SCALE * a, NOISE * b) for a, b in (up, down)]
        assert_allclose(spectra.slopes(SCALE, NOISE)[:, i], (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-7)


@SHAPES
def test_predictions_are_those_of_the_textbook(points: int, width: int) -> None:
    features, tests, y = problem(points, width)
    found = gaussian.predict(features, tests, y, SCALE, NOISE)
    joint = gaussian.predict(features, tests, y, SCALE, NOISE, covariance=True)
    for i in range(3):
        k = SCALE * features[i] @ features[i].T + NOISE * np.eye(points)
        cross = SCALE * tests[i] @ features[i].T
        covariance = SCALE * tests[i] @ tests[i].T - cross @ np.linalg.solve(k, cross.T)
        assert_allclose(found.mean[i], cross @ np.linalg.solve(k, y), rtol=1e-9, atol=1e-11)
        assert_allclose(found.covariance[i], np.diag(covariance), rtol=1e-9, atol=1e-11)
        assert_allclose(joint.covariance[i], covariance, rtol=1e-9, atol=1e-11)


def test_networks_that_overflow_have_no_likelihood() -> None:
    features, _, y = problem(4, 9)
    features[1] *= 1e200
    for found in (
        gaussian.log_likelihood(features, y, SCALE, NOISE),
        gaussian.Spectra.of(features, y).log_likelihood(SCALE, NOISE),
    ):
        assert found[1] == -np.inf
        assert np.isfinite(found[[0, 2]]).all()
    assert Weighted.of(found).weights[1] == 0
    with pytest.raises(st.InputError, match="all outputs overflow"):
        Weighted.of(found[[1]])


def test_a_network_without_outputs_leaves_the_noise() -> None:
    """Narrow ReLU networks may be dead: V_d = 0."""
    for points, width in ((4, 9), (9, 4)):
        features, _, y = problem(points, width)
        features[1] = 0
        expected = multivariate_normal.logpdf(y.T, cov=NOISE * np.eye(points)).sum()
        assert_allclose(gaussian.log_likelihood(features, y, SCALE, NOISE)[1], expected)
        assert_allclose(gaussian.Spectra.of(features, y).log_likelihood(SCALE, NOISE)[1], expected)


def test_a_singular_covariance_is_refused() -> None:
    features, _, y = problem(4, 9)
    features[:, 1] = features[:, 0]
    with pytest.raises(st.InputError, match="with noise 0 the covariance of the observations is singular"):
        gaussian.log_likelihood(features, y, SCALE, 0.0)
    assert np.isfinite(gaussian.log_likelihood(features, y, SCALE, 1e-6)).all()


def test_the_evidence_has_its_largest_value_where_a_grid_says() -> None:
    features, y = RNG.standard_normal((50, 30, 6)), 2 * RNG.standard_normal((30, 1))
    y += 3 * features[7] @ RNG.standard_normal((6, 1))
    spectra = gaussian.Spectra.of(features, y)
    search = Search.of(None, None, spectra, y)
    best = search.best(spectra, np.zeros(50))

    def evidence(scale: float, noise: float) -> float:
        return Weighted.of(spectra.log_likelihood(scale, noise)).log_evidence

    top = evidence(best.scale, best.noise)
    grid = [
        evidence(a, s) for a in best.scale * np.geomspace(0.05, 20, 61) for s in best.noise * np.geomspace(0.05, 20, 61)
    ]
    assert top >= max(grid)
    assert max(grid) > top - 0.05
    one = Search(None, best.noise, search.scales, search.noises).best(spectra, np.zeros(50))
    assert_allclose(one.scale, best.scale, rtol=1e-3)
    assert one.noise == best.noise


def test_weights_and_errors_of_log_likelihoods() -> None:
    weighted = Weighted.of(np.log([1.0, 1.0, 2.0]) + 1000)
    assert_allclose(weighted.weights, [0.25, 0.25, 0.5])
    assert weighted.log_evidence == pytest.approx(1000 + np.log(4 / 3))
    assert weighted.effective == pytest.approx(16 / 6)
    assert weighted.error == pytest.approx(np.std([1, 1, 2]) / (4 / 3) / np.sqrt(3))
