"""Elliptical slice sampling and tempering, where other ways give the same posterior."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from assertions import z_limit
from numpy.testing import assert_allclose, assert_array_equal

import shaped_transformer as st
from shaped_transformer.bayes.evidence import Hyperparameters, Search
from shaped_transformer.bayes.gaussian import finite_networks
from shaped_transformer.bayes.networks import Networks
from shaped_transformer.bayes.normals import Combined, Given, Particles, Streams, stage_of_move
from shaped_transformer.bayes.slices import UNIFORMS, slice_move
from shaped_transformer.bayes.tempering import Problem, temper

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
X = np.hstack([RNG.standard_normal((10, 3)), np.ones((10, 1))])
Y = np.sin(2 * X[:, :1]) + 0.1 * RNG.standard_normal((10, 1))
ARCH = st.Architecture(8, 2, (st.Dense(st.Activation("relu")),))
NOISE = 0.15


def chains(target: Callable[[Any], Any], count: int = 4000, moves: int = 12) -> Any:
    """Two normals of many chains that start from the prior, after some moves."""
    rng = np.random.default_rng(1)
    state = rng.standard_normal((count, 2))
    value = target(state)
    for _ in range(moves):
        other, uniforms = rng.standard_normal((count, 2)), rng.random((count, UNIFORMS))
        state, value, _ = slice_move(state, value, other, target, uniforms)
    return state, value


def test_slice_moves_lead_to_the_posterior() -> None:
    """One observation 2 of z₁ + z₂ with variance ½: the sum is N(1.6, 0.4)."""

    def target(z: Any) -> Any:
        return -((2 - z.sum(axis=1)) ** 2)

    state, value = chains(target)
    total = state.sum(axis=1)
    assert_allclose(value, target(state), rtol=1e-12)
    assert abs(total.mean() - 1.6) < z_limit() * np.sqrt(0.4 / 4000)
    assert abs(total.var() / 0.4 - 1) < z_limit() * np.sqrt(2 / 4000)
    wrong, _ = chains(lambda z: 0.9 * target(z))
    assert abs(wrong.sum(axis=1).var() / 0.4 - 1) > 0.05


def test_a_move_keeps_the_state_where_no_point_is_better() -> None:
    state, uniforms = np.ones((1, 2)), RNG.random((1, UNIFORMS))
    kept, value, angle = slice_move(state, np.zeros(1), -state, lambda z: np.full(len(z), -np.inf), uniforms)
    assert_array_equal(kept, state)
    assert (value[0], angle[0]) == (0.0, 0.0)


def problem(seed: int = 0) -> Problem:
    return Problem(Networks(ARCH, X), Y, seed, workers=1)


def prior_likelihoods(task: Problem, count: int, at: Hyperparameters) -> Any:
    size = task.networks.normals()
    return task.log_likelihood(Streams(task.seed, 0, range(count)).normal(1, size)[:, 0], at)


@pytest.fixture(scope="module")
def tempered() -> Any:
    task, at = problem(), Hyperparameters(1.0, NOISE)
    search = Search(1.0, NOISE, (1.0, 1.0), (NOISE, NOISE))
    return temper(task, prior_likelihoods(task, 2048, at), at, search, least=50)


def test_tempering_and_weights_agree(tempered: Any) -> None:
    given: dict[str, Any] = {"noise": NOISE, "workers": 1, "min_effective_samples": 0, "seed": 7}
    model = st.bayes.Regressor(ARCH, samples=20_000, **given).fit(X, Y)
    assert tempered.tempered
    assert model.effective_sample_size_ > 500
    error = np.hypot(tempered.error, model.log_evidence_error_)
    assert error < 0.2
    assert abs(tempered.log_evidence - model.log_evidence_) < z_limit() * error
    tests = X[:4] + np.array([0.3, 0.0, 0.0, 0.0])
    mixture = tempered.predict(Networks(ARCH, X), Y, tests, 1)[0]
    mean, std = model.predict(tests, return_std=True)
    tolerance = z_limit() * np.hypot(tempered.effective**-0.5, model.effective_sample_size_**-0.5)
    assert (np.abs(mixture.mean() - mean) < tolerance * std).all()
    assert (np.abs(np.sqrt(mixture.variance()) / std - 1) < tolerance).all()
    wrong = st.bayes.Regressor(ARCH, samples=20_000, **{**given, "noise": 0.5 * NOISE}).fit(X, Y)
    assert abs(tempered.log_evidence - wrong.log_evidence_) > z_limit() * np.hypot(
        tempered.error, wrong.log_evidence_error_
    )


def test_networks_are_drawn_again_from_their_addresses(tempered: Any) -> None:
    particles, size = tempered.particles, problem().networks.normals()
    assert particles.numbers.shape[1] > 5
    assert_allclose(np.sum(particles.coefficients**2, axis=1), 1, rtol=1e-12)
    some = np.array([3, 100])
    whole = particles.normals(some).normal(1, size)[:, 0]
    expected = np.zeros((2, size))
    for row, index in enumerate(some):
        for j, (number, weight) in enumerate(zip(particles.numbers[index], particles.coefficients[index], strict=True)):
            expected[row] += weight * Streams(0, 0 if j == 0 else stage_of_move(j), [number]).normal(1, size)[0, 0]
    assert_allclose(whole, expected, atol=1e-11)
    in_parts = Networks(ARCH, X).features(particles.normals(some))
    assert_allclose(in_parts, Networks(ARCH, X).features(Given(whole)), atol=1e-11)
    assert finite_networks(in_parts).all()


def test_a_combination_of_one_stream_is_the_stream() -> None:
    numbers = np.array([[4, 1], [2, 1]])
    combined = Combined(0, numbers, np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert_array_equal(combined.normal(2, 3), Streams(0, 0, [4, 2]).normal(2, 3))
    prior = Particles.of_prior(0, 5)
    assert_array_equal(prior.normals(np.array([4])).normal(2, 3), Streams(0, 0, [4]).normal(2, 3))


def test_few_draws_that_carry_all_weight_lead_to_tempering() -> None:
    model = st.bayes.Regressor(ARCH, noise=NOISE, samples=512, min_effective_samples=100, workers=2)
    model.fit(X, Y[:, 0])
    assert model.tempered_
    assert 100 <= model.effective_sample_size_ <= 256
    again = st.bayes.Regressor(**{**model.get_params(), "workers": 1}).fit(X, Y[:, 0])
    assert again.log_evidence_ == pytest.approx(model.log_evidence_, rel=1e-9)
    assert_allclose(again.predict(X), model.predict(X), rtol=1e-6)


def test_scale_and_noise_follow_the_evidence_to_its_top() -> None:
    """From scale 1 and noise 0.15 to where noise alone explains the observations."""
    given: dict[str, Any] = {"samples": 20_000, "min_effective_samples": 0, "workers": 1}
    best = st.bayes.Regressor(ARCH, noise=None, prior_scale=None, **given).fit(X, Y)
    task, at = problem(), Hyperparameters(1.0, NOISE)
    search = Search(None, None, (1e-3, 1e3), (1e-5, 1e2))
    found = temper(task, prior_likelihoods(task, 2048, at), at, search, least=50)
    error = np.hypot(found.error, best.log_evidence_error_)
    assert abs(found.log_evidence - best.log_evidence_) < 0.05 + z_limit() * error
    assert found.at.noise == pytest.approx(best.noise_, rel=0.2)
    start = st.bayes.Regressor(ARCH, noise=NOISE, **given).fit(X, Y)
    assert start.log_evidence_ < found.log_evidence - 0.05 - z_limit() * error


def test_a_posterior_out_of_reach_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = st.bayes.Regressor(ARCH, noise=1e-4, samples=64, min_effective_samples=64, workers=1)
    data = np.repeat(X, 3, axis=0), RNG.standard_normal(30)
    for setting, value, message in (
        ("FORECAST", 0, r"at power [0-9.e-]+ of the likelihood the networks hardly move"),
        (
            "STUCK",
            np.inf,
            "16 groups of networks agree only as well as [0-9]+ independent .*64 are needed",
        ),
    ):
        monkeypatch.setattr("shaped_transformer.bayes.tempering.MAX_MOVES", 2)
        monkeypatch.setattr(f"shaped_transformer.bayes.tempering.{setting}", value)
        with pytest.raises(st.NotConverged, match=message) as error:
            model.fit(*data)
        assert "\n" not in str(error.value)
