"""Posteriors against quadrature, brute force and Gaussian processes; each with a companion that must fail.

A statistical test here fails once in 10,000 runs if all is right.
"""

from typing import Any

import numpy as np
import pytest
from assertions import z_limit
from scipy.special import logsumexp
from scipy.stats import norm

import shaped_transformer as st

pytestmark = pytest.mark.slow

pytest.importorskip("sklearn")

RNG = np.random.default_rng(0)
X, TESTS = RNG.standard_normal((12, 4)), RNG.standard_normal((3, 4))
Y = X[:, 0] + 0.3 * RNG.standard_normal(12)
NOISE, SCALE = 0.1, 2.0
relu = st.Activation("relu")


def deep_linear_by_simulation(width: int, depth: int, y: Any, tests: Any, count: int = 200_000) -> tuple[float, ...]:
    """Log evidence, mean and standard deviation at the first test point, and the errors of the first two.

    f | Q ~ N(0, Q·V0) with Q a product of χ²_n/n: no network, and no draw of V_d.
    """
    rng = np.random.default_rng(1)
    q = SCALE * np.prod(rng.chisquare(width, (count, depth)) / width, axis=1)
    values, vectors = np.linalg.eigh(X @ X.T / 4)
    parts, cross = vectors.T @ y, tests @ X.T / 4 @ vectors
    total = q[:, None] * values + NOISE
    log_likelihood = norm.logpdf(parts, 0, np.sqrt(total)).sum(axis=1)
    weights = np.exp(log_likelihood - logsumexp(log_likelihood))
    means = q * ((cross[0] * parts) / total).sum(axis=1)
    variances = q * (tests[0] @ tests[0] / 4) - q**2 * (cross[0] ** 2 / total).sum(axis=1)
    mean = weights @ means
    deviation = np.sqrt(weights @ (variances + means**2) - mean**2)
    evidence = float(logsumexp(log_likelihood) - np.log(count))
    return evidence, float(mean), float(deviation), float(np.sqrt(np.sum(weights**2) - 1 / count))


def regress(arch: st.Architecture, y: Any, samples: int, **options: Any) -> Any:
    given: dict[str, Any] = {
        "noise": NOISE,
        "prior_scale": SCALE,
        "seed": 3,
        "workers": 1,
        "min_effective_samples": 0,
        **options,
    }
    return st.bayes.Regressor(arch, samples=samples, **given).fit(X, y)


def test_a_deep_linear_network_has_the_posterior_of_its_norm_alone() -> None:
    evidence, mean, deviation, error = deep_linear_by_simulation(6, 3, Y, TESTS)
    model = regress(st.deep_linear(6, 3), Y, 20_000)
    total = np.hypot(error, model.log_evidence_error_)
    assert abs(model.log_evidence_ - evidence) < z_limit() * total
    found, std = model.predict(TESTS, return_std=True)
    assert abs(found[0] - mean) < 4 * total * deviation
    assert std[0] == pytest.approx(deviation, rel=0.02)
    wrong = regress(st.deep_linear(6, 5), Y, 20_000)
    assert abs(wrong.log_evidence_ - evidence) > z_limit() * np.hypot(error, wrong.log_evidence_error_)


def test_the_evidence_is_the_mean_likelihood_of_real_networks() -> None:
    """Brute force: functions of real networks with explicit weights; two outputs share the network."""
    x, y = X[:3], np.array([[0.8, -0.6], [0.2, 0.9], [-1.1, 0.3]])
    rng, count, n = np.random.default_rng(2), 200_000, 5
    h = np.broadcast_to(x, (count, 3, 4))
    for _ in range(2):
        h = np.sqrt(2 / h.shape[-1]) * np.maximum(h @ rng.standard_normal((count, h.shape[-1], n)), 0)
    f = np.sqrt(SCALE / n) * h @ rng.standard_normal((count, n, 2))
    log_likelihood = norm.logpdf(y, f, np.sqrt(NOISE)).sum(axis=(1, 2))
    likelihood = np.exp(log_likelihood)
    evidence, error = likelihood.mean(), likelihood.std() / np.sqrt(count)
    model = st.bayes.Regressor(
        st.Architecture(n, 2, (st.Dense(relu),)), noise=NOISE, prior_scale=SCALE, samples=20_000, workers=1
    ).fit(x, y)

    def z(other: Any) -> float:
        own = np.exp(other.log_evidence_)
        return abs(own - evidence) / np.hypot(error, own * other.log_evidence_error_)

    assert z(model) < z_limit()
    assert z(model.set_params(noise=1.3 * NOISE).fit(x, y)) > z_limit()


def test_a_wide_network_is_a_gaussian_process() -> None:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel

    wide = st.Architecture(20_000, 2, (st.Dense(relu),))
    kernel = ConstantKernel(SCALE) * st.bayes.InfiniteWidthKernel(wide)
    process = GaussianProcessRegressor(kernel, alpha=NOISE, optimizer=None).fit(X, Y)
    mean, std = process.predict(TESTS, return_std=True)
    model = regress(wide, Y, 40)
    found, deviation = model.predict(TESTS, return_std=True)
    assert model.log_evidence_ == pytest.approx(process.log_marginal_likelihood_value_, abs=0.1)
    np.testing.assert_allclose(found, mean, atol=0.01)
    np.testing.assert_allclose(deviation, std, rtol=0.01)
    narrow = regress(st.Architecture(20, 2, (st.Dense(relu),)), Y, 2000)
    assert abs(narrow.log_evidence_ - process.log_marginal_likelihood_value_) > 0.2


def test_outputs_are_correlated_through_the_network() -> None:
    """E f₁²f₂² = E V² > (E V)²: for one input E V²/(E V)² is (1 + 5/n)^d with ReLUs, and 1 for a Gaussian process."""
    n, d = 8, 3
    v = st.bayes.sample(st.Architecture(n, d, (st.Dense(relu),)), X[:1], 40_000, seed=1).covariance[:, 0, 0]
    v /= np.mean(X[0] ** 2)
    error = np.std(v**2) / np.sqrt(len(v))
    assert abs(np.mean(v**2) - (1 + 5 / n) ** d) < z_limit() * error
    assert abs(np.mean(v**2) - (1 + 5 / n) ** (d - 0.5)) > z_limit() * error
    model = st.bayes.Regressor(st.Architecture(n, d, (st.Dense(relu),)), noise=1.0, samples=2000, workers=1)
    spread = [model.fit(X[1:2], [[0.5, other]]).predict(X[1:2], return_std=True)[1][0, 0] for other in (0.5, 3.0)]
    assert spread[1] > 1.2 * spread[0]  # where the other output is large, so may this one be


def test_predictions_are_weighted_by_the_likelihood() -> None:
    """Drawn jointly with a training set of their own: the predictive density is a ratio of two evidences."""
    arch = st.Architecture(10, 2, (st.Residual(st.MLP(st.ShapedReLU(0.0, -2.0)), 0.7),))
    model = regress(arch, Y, 20_000)
    density = model.log_predictive_density(TESTS[:1], [0.4])[0]
    given: dict[str, Any] = {"noise": NOISE, "prior_scale": SCALE, "seed": 9, "workers": 1, "min_effective_samples": 0}
    longer = st.bayes.Regressor(arch, samples=20_000, **given).fit(np.vstack([X, TESTS[:1]]), np.append(Y, 0.4))
    error = np.hypot(model.log_evidence_error_, longer.log_evidence_error_)
    assert abs(longer.log_evidence_ - model.log_evidence_ - density) < z_limit() * error
    prior = norm.logpdf(0.4, 0, np.sqrt(SCALE * np.mean(TESTS[0] ** 2) + NOISE))
    assert abs(longer.log_evidence_ - model.log_evidence_ - prior) > z_limit() * error
