"""Deep linear networks: the prior against closed forms and real networks, the posterior against independent sums."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

import shaped_transformer as st
from shaped_transformer.bayes import DeepLinear
from shaped_transformer.bayes.norms import log_normal, norm_of_products

ALARM = 1e-4
RNG = np.random.default_rng(0)
X = RNG.standard_normal((12, 4))
Y = X[:, 0] + 0.3 * RNG.standard_normal(12)
NOISE = 0.1


def log_normal_density(y: Any, covariance: Any) -> Any:
    """log N(y; 0, C) of one or more covariances."""
    _, log_det = np.linalg.slogdet(covariance)
    solved = np.linalg.solve(covariance, np.broadcast_to(y[:, None], (*covariance.shape[:-1], 1)))[..., 0]
    return -(solved @ y + log_det + len(y) * np.log(2 * np.pi)) / 2


@pytest.mark.parametrize(("width", "depth"), [(1, 1), (1, 30), (3, 2), (128, 16), (10, 100), (100_000, 1)])
def test_nodes_have_the_moments_of_products_of_chi_squares(width: int, depth: int) -> None:
    q, weights = norm_of_products(width, depth)
    assert weights.sum() == pytest.approx(1, rel=1e-12)
    assert weights @ q == pytest.approx(1, rel=1e-9)
    assert weights @ q**2 == pytest.approx((1 + 2 / width) ** depth, rel=1e-9)


@pytest.mark.parametrize("time", [0.01, 1.0, 6.0])
def test_nodes_have_the_moments_of_the_limit(time: float) -> None:
    q, weights = log_normal(time)
    assert weights @ q == pytest.approx(1, rel=1e-9)
    assert weights @ q**2 == pytest.approx(np.exp(2 * time), rel=1e-9)


@pytest.mark.parametrize(("width", "depth"), [(3, 2), (4, 3), (16, 4)])
def test_the_density_is_the_meijer_g_function(width: int, depth: int) -> None:
    """Hanin and Zlokapa, for d = depth + 1 matrices: density of the output times √N^depth."""
    mpmath = pytest.importorskip("mpmath")
    unit, d = mpmath.sqrt(mpmath.mpf(width) ** depth), depth + 1
    for f in (0.2, 1.0, 3.0):
        argument = (f * unit) ** 2 / mpmath.mpf(2) ** d
        g = mpmath.meijerg([[], []], [[0] + [mpmath.mpf(width - 1) / 2] * (d - 1), []], argument)
        expected = unit * g / mpmath.sqrt(2**d * mpmath.pi) / mpmath.gamma(mpmath.mpf(width) / 2) ** (d - 1)
        assert DeepLinear(width, depth).density(f, 1.0) == pytest.approx(float(expected), rel=1e-8)
        assert DeepLinear(width, depth + 1).density(f, 1.0) != pytest.approx(float(expected), rel=1e-2)


def test_the_distribution_is_the_integral_of_the_density() -> None:
    network, at = DeepLinear(16, 8), np.linspace(-12, 1.5, 20_001)
    integral = np.trapezoid(network.density(at, 2.0), at) + network.distribution(-12.0, 2.0)
    assert network.distribution(1.5, 2.0) == pytest.approx(integral, abs=1e-8)
    assert network.distribution(0.0, 2.0) == pytest.approx(0.5, abs=1e-12)


def real_outputs(width: int, depth: int, count: int, outputs: int = 2) -> Any:
    """Outputs of real networks at the first two inputs, (count, 2 · outputs)."""
    rng = np.random.default_rng(5)
    state = np.broadcast_to(X[:2], (count, 2, 4))
    for _ in range(depth):
        state = state @ rng.standard_normal((count, state.shape[-1], width)) / np.sqrt(state.shape[-1])
    state = state @ rng.standard_normal((count, width, outputs)) / np.sqrt(width)
    return state.reshape(count, -1)


def smallest_p(a: Any, b: Any) -> float:
    """Of two-sample tests of outputs, their products and their squared norm."""
    features = [a[:, 0], a[:, 3], a[:, 0] * a[:, 1], a[:, 0] * a[:, 2], (a**2).sum(1)]
    others = [b[:, 0], b[:, 3], b[:, 0] * b[:, 1], b[:, 0] * b[:, 2], (b**2).sum(1)]
    return min(5 * stats.ks_2samp(x, y).pvalue for x, y in zip(features, others, strict=True))


def test_outputs_are_those_of_real_networks() -> None:
    drawn = DeepLinear(6, 5, outputs=2).sample(X[:2], 20_000, seed=1).reshape(20_000, -1)
    assert smallest_p(drawn, real_outputs(6, 5, 20_000)) > ALARM


def test_a_network_that_is_two_layers_deeper_is_told_apart() -> None:
    drawn = DeepLinear(6, 7, outputs=2).sample(X[:2], 20_000, seed=1).reshape(20_000, -1)
    assert smallest_p(drawn, real_outputs(6, 5, 20_000)) < ALARM


@pytest.mark.parametrize("limit", [False, True])
def test_two_outputs_are_dependent(limit: bool) -> None:
    """E Q₁₁Q₂₂ = [(1 + 2/N)^L + 2(1 − 1/N)^L]/3, in the limit [e^{2α} + 2e^{−α}]/3; of a Gaussian process it is 1."""
    width, depth = 16, 12
    q = DeepLinear(width, depth, outputs=2, limit=limit).mixing(200_000, 0)
    product = q[:, 0, 0] * q[:, 1, 1]
    grown, shrunk = (
        (np.exp(2 * depth / width), np.exp(-depth / width))
        if limit
        else (
            (1 + 2 / width) ** depth,
            (1 - 1 / width) ** depth,
        )
    )
    error = product.std() / np.sqrt(len(product))
    assert abs(product.mean() - (grown + 2 * shrunk) / 3) < stats.norm.isf(ALARM / 2) * error
    assert product.mean() - 1 > 10 * error


def test_the_evidence_of_one_output_is_that_of_draws() -> None:
    network = DeepLinear(8, 6)
    exact = network.fit(X, Y, NOISE)
    assert exact.log_evidence_error == 0
    q = network.mixing(40_000, 3)[:, 0, 0]
    gram = X @ X.T / 4
    logs = log_normal_density(Y, q[:, None, None] * gram + NOISE * np.eye(12))
    likelihood = np.exp(logs - exact.log_evidence)
    error = likelihood.std() / np.sqrt(len(q))
    assert abs(likelihood.mean() - 1) < stats.norm.isf(ALARM / 2) * error
    wrong = network.fit(X, Y, 1.1 * NOISE)
    assert abs(wrong.log_evidence - exact.log_evidence) > stats.norm.isf(ALARM / 2) * error


def test_the_posterior_of_one_output_is_a_mixture_of_gaussian_processes() -> None:
    q, prior = norm_of_products(8, 6)
    q, prior = q[prior > 1e-12], prior[prior > 1e-12]
    gram, cross = X @ X.T / 4, X[:2] @ X.T / 4
    covariances = q[:, None, None] * gram + NOISE * np.eye(12)
    logs = log_normal_density(Y, covariances)
    weights = prior * np.exp(logs - logs.max())
    weights /= weights.sum()
    means = (q[:, None, None] * cross @ np.linalg.inv(covariances)) @ Y
    found = DeepLinear(8, 6).fit(X, Y, NOISE)
    np.testing.assert_allclose(found.predict(X[:2]), weights @ means, rtol=1e-6)
    low, _, high = found.predict_quantiles(X[:2], (0.05, 0.5, 0.95))
    mean, deviation = found.predict(X[:2], return_std=True)
    assert (low < mean).all()
    assert (high - low) / deviation == pytest.approx(3.29, rel=0.1)
    np.testing.assert_array_equal(found.predict_quantiles(X[:2], 0.05), low)
    noisy_low, noisy_high = found.predict_quantiles(X[:2], observed=True)
    assert (noisy_low < low).all()
    assert (noisy_high > high).all()


def test_wide_networks_are_gaussian_processes() -> None:
    wide, gram = DeepLinear(100_000, 3).fit(X, Y, NOISE), X @ X.T / 4
    covariance = gram + NOISE * np.eye(12)
    assert wide.log_evidence == pytest.approx(float(log_normal_density(Y, covariance)), abs=1e-3)
    np.testing.assert_allclose(wide.predict(X[:3]), X[:3] @ X.T / 4 @ np.linalg.solve(covariance, Y), rtol=1e-3)


def test_depth_and_width_meet_their_limit() -> None:
    limit = DeepLinear(8, 6, limit=True).fit(X, Y, NOISE).log_evidence
    assert DeepLinear(8000, 6000).fit(X, Y, NOISE).log_evidence == pytest.approx(limit, abs=1e-4)


def test_several_outputs_have_the_evidence_of_the_chain_over_inputs() -> None:
    """The chain of the outputs, 2 × 2, and that of the inputs, 3 × 3, are the same prior."""
    x, y = X[:3], np.stack([Y[:3], -Y[:3]], axis=1)
    ours = DeepLinear(8, 6, outputs=2).fit(x, y, NOISE, samples=40_000)
    covariances = st.bayes.sample(st.deep_linear(8, 6), x, 40_000, seed=2).covariance + NOISE * np.eye(3)
    likelihood = np.exp(sum(log_normal_density(one, covariances) for one in y.T) - ours.log_evidence)
    error = np.hypot(likelihood.std() / np.sqrt(len(likelihood)), ours.log_evidence_error)
    assert abs(likelihood.mean() - 1) < stats.norm.isf(ALARM / 2) * error
    assert error < 0.03
    wrong = DeepLinear(8, 6, outputs=2).fit(x, y, 1.1 * NOISE, samples=40_000)
    assert abs(np.expm1(wrong.log_evidence - ours.log_evidence)) > stats.norm.isf(ALARM / 2) * error


def test_given_the_noise_zero_the_observations_are_met() -> None:
    found = DeepLinear(8, 6).fit(X[:3], Y[:3], 0.0)
    np.testing.assert_allclose(found.predict(X[:3]), Y[:3], rtol=1e-9)
    assert found.output_covariance(X[:3]).max() < 1e-12


def test_predictions_have_the_form_of_the_observations() -> None:
    column = DeepLinear(8, 6).fit(X, Y[:, None], NOISE)
    flat = DeepLinear(8, 6).fit(X, Y, NOISE)
    mean, std = column.predict(X[:2], return_std=True)
    assert mean.shape == std.shape == (2, 1)
    np.testing.assert_array_equal(mean[:, 0], flat.predict(X[:2]))
    assert column.predict_quantiles(X[:2]).shape == (2, 2, 1)
    assert column.predict_quantiles(X[:2], 0.5).shape == (2, 1)
    two = DeepLinear(8, 6, outputs=2).fit(X[:3], np.stack([Y[:3], -Y[:3]], axis=1), NOISE, samples=2_000)
    mean, std = two.predict(X[:4], return_std=True)
    assert mean.shape == std.shape == (4, 2)
    covariance = two.output_covariance(X[:4])
    assert covariance.shape == (4, 2, 2)
    np.testing.assert_allclose(std**2, np.diagonal(covariance, axis1=1, axis2=2))


def test_a_posterior_prints_one_line() -> None:
    found = repr(DeepLinear(8, 6).fit(X, Y, NOISE))
    assert found.startswith("DeepLinearPosterior(12 inputs, 1 output, noise ")
    assert "\n" not in found


ERRORS: dict[str, tuple[Any, str]] = {
    "width": (lambda: DeepLinear(0, 2), "width must be"),
    "outputs": (lambda: DeepLinear(2, 2, outputs=3), "width of at least 3"),
    "density": (lambda: DeepLinear(3, 2, outputs=2).density(0.0, 1.0), "for one output"),
    "variance": (lambda: DeepLinear(3, 2).density(0.0, -1.0), "variance must be a positive"),
    "where": (lambda: DeepLinear(3, 2).density(np.nan, 1.0), "finite"),
    "shape": (lambda: DeepLinear(3, 2).fit(X, Y[:5], 0.1), "each of the 12 inputs"),
    "columns": (
        lambda: DeepLinear(3, 2).fit(X, np.stack([Y, Y], 1), 0.1),
        r"y must hold 1 number .*\(12, 2\)\): DeepLinear\(..., outputs=\)",
    ),
    "nan": (lambda: DeepLinear(3, 2).fit(X, np.full(12, np.nan), 0.1), "observations y"),
    "noise": (lambda: DeepLinear(3, 2).fit(X, Y, -0.1), "noise must be at least 0"),
    "no noise": (lambda: DeepLinear(3, 2).fit(X, Y, 0.0), "12 inputs span 4 dimensions"),
    "tests": (lambda: DeepLinear(3, 2).fit(X, Y, 0.1).predict(X[:, :2]), "test points X"),
    "limit": (lambda: DeepLinear(3, 2, limit="yes"), "limit must be True or False"),  # type: ignore[arg-type]
    "text": (lambda: DeepLinear(3, 2).density("a", 1.0), "f must hold finite numbers"),
    "large": (lambda: DeepLinear(3, 2).fit(X, 1e200 * Y, 0.1), "y is so large"),
    "no quantiles": (lambda: DeepLinear(3, 2).fit(X, Y, 0.1).predict_quantiles(X, ()), "between 0 and 1"),
    "word": (
        lambda: DeepLinear(3, 2).fit(X, Y, 0.1).predict_quantiles(X, "all"),  # type: ignore[arg-type]
        "between 0 and 1",
    ),
    "quantiles": (lambda: DeepLinear(3, 2).fit(X, Y, 0.1).predict_quantiles(X, 1.5), "between 0 and 1"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_is_one_line(name: str) -> None:
    make, message = ERRORS[name]
    with pytest.raises(st.InputError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_a_posterior_that_draws_do_not_reach_is_refused() -> None:
    far = 1e3 * np.stack([Y, -Y], axis=1)
    with pytest.raises(st.NotConverged, match=r"effective sample size of \d+ \(50 are needed\)"):
        DeepLinear(64, 2, outputs=2).fit(X, far, 1e-3, samples=500)
