"""Mixtures of Gaussians: moments, quantiles and densities."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.stats import norm

from shaped_transformer.bayes.mixture import Mixture

WEIGHTS, MEANS, VARIANCES = np.array([0.2, 0.5, 0.3]), np.array([-1.0, 0.0, 2.0]), np.array([0.5, 1.0, 0.1])
MIXTURE = Mixture(WEIGHTS, MEANS[:, None, None], VARIANCES[:, None])


def test_moments() -> None:
    mean = WEIGHTS @ MEANS
    assert MIXTURE.mean()[0, 0] == pytest.approx(mean)
    assert MIXTURE.variance()[0, 0] == pytest.approx(WEIGHTS @ (VARIANCES + MEANS**2) - mean**2)


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_quantiles_and_densities(noise: float) -> None:
    sd = np.sqrt(VARIANCES + noise)
    levels = np.array([0.01, 0.5, 0.9])
    found = MIXTURE.quantiles(levels, noise)[:, 0, 0]
    assert_allclose([WEIGHTS @ norm.cdf(x, MEANS, sd) for x in found], levels, rtol=1e-9)
    density = WEIGHTS @ norm.pdf(0.7, MEANS, sd)
    assert MIXTURE.log_density(np.array([[0.7]]), noise)[0] == pytest.approx(np.log(density))
    total, _ = quad(lambda y: np.exp(MIXTURE.log_density(np.array([[y]]), noise)[0]), -15, 15)
    assert total == pytest.approx(1, rel=1e-6)


def test_without_variance_a_density_is_zero_or_infinite() -> None:
    certain = Mixture(np.array([0.5, 0.5]), np.array([0.0, 1.0])[:, None, None], np.zeros((2, 1)))
    found = [certain.log_density(np.array([[y]]), 0.0)[0] for y in (0.0, 1.0, 0.5)]
    assert found == [np.inf, np.inf, -np.inf]


def test_outputs_are_independent_only_given_the_network() -> None:
    both = Mixture(WEIGHTS, np.zeros((3, 1, 2)), VARIANCES[:, None])
    y = np.array([[1.5, -1.5]])
    expected = WEIGHTS @ (norm.pdf(1.5, 0, np.sqrt(VARIANCES)) ** 2)
    assert both.log_density(y, 0.0)[0] == pytest.approx(np.log(expected))
    one = Mixture(WEIGHTS, np.zeros((3, 1, 1)), VARIANCES[:, None])
    assert both.log_density(y, 0.0)[0] > 2 * one.log_density(y[:, :1], 0.0)[0] + 0.1


def test_quantiles_without_variance_are_steps() -> None:
    steps = Mixture(WEIGHTS, MEANS[:, None, None], np.zeros((3, 1)))
    assert_allclose(steps.quantiles(np.array([0.1, 0.4, 0.9]), 0.0)[:, 0, 0], [-1.0, 0.0, 2.0], atol=1e-9)
    same = Mixture(WEIGHTS, np.ones((3, 1, 1)), np.zeros((3, 1)))
    assert_allclose(same.quantiles(np.array([0.1, 0.9]), 0.0)[:, 0, 0], 1.0)
