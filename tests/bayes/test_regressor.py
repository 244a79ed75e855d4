"""The estimator: scikit-learn's checks, its attributes, and what it says to bad input."""

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

import shaped_transformer as st

sklearn = pytest.importorskip("sklearn")
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from shaped_transformer.bayes import Regressor

SMALL = st.Architecture(8, 1, (st.Dense(st.Activation("relu")),))
RNG = np.random.default_rng(0)
X, TESTS = RNG.standard_normal((15, 3)), RNG.standard_normal((4, 3))
Y = X[:, 0] - np.abs(X[:, 1]) + 0.1 * RNG.standard_normal(15)


def small(**options: Any) -> Regressor:
    return Regressor(**{"architecture": SMALL, "samples": 64, "min_effective_samples": 0, "workers": 1, **options})


@parametrize_with_checks([small()])  # type: ignore[untyped-decorator]
def test_scikit_learn(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=DeprecationWarning)
        check(estimator)


def test_the_default_is_fitted_and_tells_its_posterior() -> None:
    model = Regressor(samples=500).fit(X, Y)
    assert model.architecture_ == st.shaped_mlp(64, 2, activation=st.Activation("relu"))
    assert (model.noise_, model.prior_scale_, model.tempered_) == (0.1, 1.0, False)
    assert 100 < model.effective_sample_size_ <= 500
    assert 0 < model.log_evidence_error_ < 0.1
    assert model.n_features_in_ == 3
    mean, std = model.predict(X, return_std=True)
    assert np.mean((mean - Y) ** 2) < 0.2 * np.var(Y)
    assert ((std > 0) & (std < 1)).all()


def test_what_is_asked_together_changes_nothing() -> None:
    model = small(samples=100).fit(X, Y)
    mean, std = model.predict(TESTS, return_std=True)
    for i in range(4):
        one = model.predict(TESTS[i : i + 1], return_std=True)
        assert_allclose([mean[i], std[i]], np.ravel(one), rtol=1e-9)
    joint, covariance = model.predict(TESTS, return_cov=True)
    assert covariance.shape == (4, 4)
    assert np.linalg.eigvalsh(covariance).min() > 0
    assert_allclose(joint[0], mean[0], rtol=1e-9)  # the first test point is drawn alike
    assert_allclose(covariance[0, 0], std[0] ** 2, rtol=1e-9)
    assert_allclose(np.sqrt(np.diag(covariance)), std, rtol=0.3)


def test_quantiles_and_densities_are_those_of_the_mixture() -> None:
    model = small(samples=200).fit(X, Y)
    low, middle, high = model.predict_quantiles(TESTS, (0.05, 0.5, 0.95))
    mean, std = model.predict(TESTS, return_std=True)
    assert ((low < middle) & (middle < high)).all()
    assert (np.abs(middle - mean) < 0.3 * std).all()
    wider = model.predict_quantiles(TESTS, (0.05, 0.95), observed=True)
    assert ((wider[0] < low) & (wider[1] > high)).all()
    assert_array_equal(model.predict_quantiles(TESTS, 0.05), low)
    grid = np.linspace(-8, 8, 2001)
    density = np.exp(model.log_predictive_density(np.repeat(TESTS[:1], len(grid), axis=0), grid))
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-3)
    assert np.trapezoid(density * grid, grid) == pytest.approx(mean[0], abs=1e-3)
    assert np.trapezoid(density * (grid - mean[0]) ** 2, grid) == pytest.approx(std[0] ** 2 + 0.1, rel=1e-2)


def test_several_outputs() -> None:
    targets = np.stack([Y, -2 * Y, X[:, 2]], axis=1)
    model = small(samples=200).fit(X, targets)
    mean, std = model.predict(TESTS, return_std=True)
    assert mean.shape == std.shape == (4, 3)
    assert_allclose(mean[:, 1], -2 * mean[:, 0], rtol=1e-9)
    assert model.predict(TESTS, return_cov=True)[1].shape == (4, 4, 3)
    assert model.predict_quantiles(TESTS).shape == (2, 4, 3)
    assert model.log_predictive_density(TESTS, mean).shape == (4,)
    with pytest.raises(st.InputError, match="y must have the outputs of fit"):
        model.log_predictive_density(TESTS, mean[:, 0])


def test_many_test_points_go_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small().fit(X, Y)
    tests = RNG.standard_normal((20, 3))
    whole = (
        model.predict(tests, return_std=True),
        model.predict_quantiles(tests),
        model.log_predictive_density(tests, tests[:, 0]),
    )
    monkeypatch.setattr("shaped_transformer.bayes.posterior.PREDICTED_NUMBERS", 64 * 2 * 7)
    parts = (
        model.predict(tests, return_std=True),
        model.predict_quantiles(tests),
        model.log_predictive_density(tests, tests[:, 0]),
    )
    for one, other in zip(whole, parts, strict=True):
        assert_allclose(one, other, rtol=1e-9)


def test_the_evidence_chooses_noise_and_scale() -> None:
    x = RNG.standard_normal((60, 2))
    y = 3 * (x @ [0.6, 0.8]) + 0.5 * RNG.standard_normal(60)
    fixed = small(samples=500, architecture=st.deep_linear(16, 1), noise=0.25).fit(x, y)
    noise = small(samples=500, architecture=st.deep_linear(16, 1), noise=None).fit(x, y)
    both = noise.__class__(**{**noise.get_params(), "prior_scale": None}).fit(x, y)
    assert noise.noise_ == pytest.approx(0.25, rel=0.5)
    assert fixed.log_evidence_ <= noise.log_evidence_ <= both.log_evidence_
    assert both.prior_scale_ > 2
    scale = small(samples=500, architecture=st.deep_linear(16, 1), noise=0.25, prior_scale=None).fit(x, y)
    assert scale.prior_scale_ == pytest.approx(both.prior_scale_, rel=0.2)


def test_noise_zero_interpolates() -> None:
    model = small(architecture=st.deep_linear(20, 1), noise=0.0, samples=200).fit(X[:3], Y[:3])
    mean, std = model.predict(X[:3], return_std=True)
    assert_allclose(mean, Y[:3], rtol=1e-9)
    assert_allclose(std, 0, atol=1e-6)
    for at in (Y[:3], Y[:3] + 1):  # whatever the rounding errors
        with pytest.raises(st.InputError, match="density of observation 0 is zero or infinite: without noise"):
            model.log_predictive_density(X[:3], at)
    open_ones = small(architecture=st.deep_linear(20, 1), noise=0.0).fit(X[:2], Y[:2])
    assert np.isfinite(open_ones.log_predictive_density(TESTS, TESTS[:, 0])).all()
    chosen = small(architecture=st.deep_linear(20, 1), noise=0.0, prior_scale=None).fit(X[:3], Y[:3])
    assert np.isfinite(chosen.log_evidence_)


def test_it_works_in_pipelines_and_searches_and_is_pickled() -> None:
    model = make_pipeline(StandardScaler(), PolynomialFeatures(degree=1), small()).fit(X, Y)
    assert model.score(X, Y) > 0.5
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.predict(TESTS), model.predict(TESTS))
    search = GridSearchCV(small(), {"noise": [0.1, 1.0]}, cv=2).fit(X, Y)
    assert search.best_params_["noise"] in (0.1, 1.0)


def test_inputs_may_repeat_and_observations_be_constant() -> None:
    model = small().fit(np.repeat(X[:4], 3, axis=0), np.ones(12))
    assert np.isfinite(model.predict(TESTS)).all()
    with pytest.raises(st.InputError, match="y is constant, so the evidence has no best noise or prior scale"):
        small(noise=None).fit(X, np.ones(15))


@pytest.mark.parametrize(
    ("options", "x", "y", "message"),
    [
        ({}, X, Y[:-1], "inconsistent numbers of samples"),
        ({}, X, Y[:, None, None], "dim 3"),
        ({}, X, np.where(Y > 0, Y, np.nan), "Input y contains NaN"),
        ({}, np.where(X > 1, np.inf, X), Y, "Input X contains infinity"),
        ({}, X[:, 0], Y, "Expected 2D array, got 1D array instead"),
        ({"noise": -0.1}, X, Y, r"noise is a variance: at least 0, or None .* \(got -0.1\)"),
        ({"noise": "evidence"}, X, Y, "noise must be a number"),
        ({"prior_scale": 0.0}, X, Y, "prior_scale must be positive"),
        ({"samples": 0}, X, Y, "samples must be a whole number"),
        ({"seed": 0.5}, X, Y, "seed must be"),
        ({"workers": 0}, X, Y, "workers must be"),
        ({"min_effective_samples": 65}, X, Y, r"the number of samples, 64 \(got 65\): ask for fewer"),
        ({"noise": 0.0}, X, Y, r"noise 0 needs at most as many inputs as the width 8 \(got 15\)"),
        (
            {"noise": 0.0, "architecture": st.deep_linear(20, 1)},
            X[[0, 1, 1]],
            Y[:3],
            "with noise 0 the covariance .* singular",
        ),
        ({"noise": 0.0, "prior_scale": None, "architecture": st.deep_linear(20, 1)}, X[[0, 1, 1]], Y[:3], "singular"),
        ({"architecture": st.shaped_transformer(8, 1)}, X, Y, "attention mixes the inputs"),
        ({"architecture": "relu"}, X, Y, "an Architecture is expected"),
        ({"samples": 10**12, "noise": None}, X, Y, "the spectra of 1,000,000,000,000 draws take .* GB"),
        (
            {"architecture": st.deep_linear(10**6, 1)},
            X,
            Y,
            "networks of 15 inputs and width 1,000,000 in all threads take 8000.* GB",
        ),
        ({}, 1e200 * X, Y, "all outputs overflow"),
        ({}, X, 1e200 * Y, "y is infinite, or so large"),
        ({}, X, np.array([np.inf, *Y[1:]], dtype=object), "y is infinite"),
        ({}, X, ["a"] * 15, "y must hold numbers"),
        ({"workers": "all"}, X, Y, "workers must be"),
    ],
)
def test_bad_input_is_one_line(options: dict[str, Any], x: Any, y: Any, message: str) -> None:
    with pytest.raises(st.InputError, match=message) as error:
        small(**options).fit(x, y)
    assert "\n" not in str(error.value)


def test_bad_questions_are_one_line() -> None:
    with pytest.raises(NotFittedError):
        small().predict(X)
    model: Any = small().fit(X, Y)
    for ask, asked, message in (
        (model.predict, (X, True, True), "not both"),
        (model.predict, (X[:, :2],), "X has 2 features, but Regressor is expecting 3"),
        (model.predict_quantiles, (X, (0.0, 0.5)), "quantiles must be numbers between 0 and 1"),
        (model.predict_quantiles, (X, "all"), "quantiles must be numbers"),
        (model.predict_quantiles, (X, ()), "quantiles must be numbers"),
        (model.predict, (1e200 * X,), "outputs overflow at some of these inputs"),
        (model.log_predictive_density, (X, Y[:-1]), "inconsistent numbers of samples"),
        (model.log_predictive_density, (X, ["a"] * 15), "y must hold numbers"),
        (model.log_predictive_density, (X, np.ones((15, 2))), r"the shape \(15,\) \(got \(15, 2\)\)"),
        (model.log_predictive_density, (X[:1], [1e154]), "density of observation 0 is too small"),
    ):
        with pytest.raises(st.InputError, match=message) as error:
            ask(*asked)
        assert "\n" not in str(error.value)


def test_one_network_predicts_as_its_gaussian_process() -> None:
    arch = st.deep_linear(20, 1)
    model = small(architecture=arch, samples=1).fit(X, Y)
    drawn = st.bayes.sample(arch, X, 1, seed=0, tests=TESTS[:1])
    k = drawn.covariance[0] + 0.1 * np.eye(15)
    mean = drawn.cross[0] @ np.linalg.solve(k, Y)
    variance = drawn.tests[0] - np.sum(drawn.cross[0] * np.linalg.solve(k, drawn.cross[0].T).T, axis=1)
    found, std = model.predict(TESTS[:1], return_std=True)
    assert_allclose(found, mean, rtol=1e-9)
    assert_allclose(std**2, variance, rtol=1e-8)
    assert_allclose(model.predict_quantiles(TESTS[:1], 0.9), norm.ppf(0.9, mean, np.sqrt(variance)), rtol=1e-8)
