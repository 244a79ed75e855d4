"""Norms under smooth activations explode as often as in the limit, at the default number of steps (theory §4)."""

import math

import numpy as np
import pytest
from assertions import FALSE_ALARM, assert_not_the_law, assert_same_law
from scipy.linalg import solve_banded
from scipy.stats import binomtest

import shaped_transformer as st
from shaped_transformer.figures.shaped_mlp import ACTIVATIONS, WEIGHT, bent

SAMPLES, EXPLODED = 40_000, 1e4
BALANCED, SOFTPLUS = ACTIVATIONS["balanced, β = 0"], ACTIVATIONS["softplus, β = 3/16"]
OFF = 1.1 * WEIGHT
OFF_BALANCE = st.Smooth(lambda x: OFF * bent(x) + (1 - OFF) * np.tanh(x), OFF / 2, -2 * (1 - OFF))
"""The balanced activation with its weight 10 % too large, so that β > 0."""
V0 = np.array([[1.2, 0.3, -0.2], [0.3, 1.4, 0.5], [-0.2, 0.5, 0.8]])


def dense(phi: st.Smooth, a: float) -> st.Architecture:
    return st.shaped_mlp(100, 100, activation=st.ShapedSmooth(phi, a))


def residual(phi: st.Smooth, a: float, gamma: float) -> st.Architecture:
    return st.Architecture(100, 100, (st.Residual(st.MLP(st.ShapedSmooth(phi, a)), gamma),))


def exploded(arch: st.Architecture, seed: int) -> int:
    """Return the number of paths of the limit, from one unit token, whose norm exceeds 1e4."""
    e = st.sde.sample(arch, np.ones((1, 1)), SAMPLES, seed=seed, record=101)
    return int(np.sum((e.covariance[:, :, 0, 0] > EXPLODED).any(axis=1) | (e.stopped <= arch.depth)))


def share_by_backward_equation(rate: float, noise: float, time: float = 1.0) -> float:
    """Return P(a path of dv = rate·v(v − 1) dt + √noise·v dB from 1 exceeds 1e4 by `time`), from a grid of log v."""
    y, steps = np.linspace(-14, math.log(EXPLODED), 8000), 4000
    gap, dt, drift = y[1] - y[0], time / steps, rate * (np.exp(y) - 1) - noise / 2
    down = noise / 2 / gap**2 + np.maximum(-drift, 0) / gap
    up = noise / 2 / gap**2 + np.maximum(drift, 0) / gap
    inside = np.arange(1, len(y) - 1)
    bands = np.zeros((3, len(y)))
    bands[1] = 1
    bands[1, inside] += dt * (down + up)[inside]
    bands[0, inside + 1], bands[2, inside - 1] = -dt * up[inside], -dt * down[inside]
    u = np.zeros(len(y))
    u[-1] = 1
    for _ in range(steps):
        u = solve_banded((1, 1), bands, u)
    return float(np.interp(0, y, u))


@pytest.mark.slow
def test_neutral_norms_do_not_explode() -> None:
    """With β = 0 the norm is a martingale, so at most one path in 10,000 exceeds 1e4 (Doob)."""
    for phi, neutral in ((BALANCED, True), (OFF_BALANCE, False)):
        seen = exploded(dense(phi, 0.4), seed=1)
        p_value = binomtest(seen, SAMPLES, 1 / EXPLODED, alternative="greater").pvalue
        assert (p_value > FALSE_ALARM) == neutral


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "wrong", "rate", "noise"),
    [
        (dense(SOFTPLUS, 0.4), dense(SOFTPLUS, 0.44), 3 / 16 / 0.4**2, 2.0),
        (residual(SOFTPLUS, 0.2, 0.6), residual(SOFTPLUS, 0.2, 0.54), 0.6**2 * 3 / 16 / 0.2**2, 4 * 0.6**2),
    ],
    ids=["dense", "residual"],
)
def test_explosive_norms_explode_as_often_as_the_limit(
    arch: st.Architecture, wrong: st.Architecture, rate: float, noise: float
) -> None:
    want = share_by_backward_equation(rate, noise)
    assert 0.05 < want < 0.5
    assert binomtest(exploded(arch, seed=2), SAMPLES, want).pvalue > FALSE_ALARM
    assert binomtest(exploded(wrong, seed=2), SAMPLES, want).pvalue < FALSE_ALARM


@pytest.mark.slow
def test_both_schemes_have_the_same_law_for_an_activation_with_curvature() -> None:
    wishart = st.sde.sample(dense(BALANCED, 0.6), V0, 10_000, seed=5, steps=200, record=1)
    euler, wrong = (
        st.sde.sample(dense(BALANCED, a), V0, 10_000, seed=5, steps=800, record=1, scheme="euler") for a in (0.6, 0.54)
    )
    assert_same_law(wishart, euler)
    assert_not_the_law(wishart, wrong)


def test_a_token_of_norm_zero_stays_zero() -> None:
    v0 = np.diag([1.0, 0.0])
    for phi in (BALANCED, st.Smooth(np.tanh, 0.0, -2.0)):
        e = st.sde.sample(dense(phi, 0.4), v0, 100, seed=0, record=2)
        assert (e.covariance[:, :, 1, :] == 0).all()
        assert np.isfinite(e.covariance).all()


@pytest.mark.slow
def test_default_steps_resolve_a_strong_drift() -> None:
    """Norms fluctuate about 1 with variance a²/2; with 100 steps the variance would be four times as large."""
    arch = dense(st.Smooth(np.tanh, 0.0, -2.0), 0.1)
    by_default, fine, coarse = (
        st.sde.sample(arch, V0, 4000, seed=seed, steps=steps, record=1)
        for seed, steps in ((6, None), (7, 8000), (8, 100))
    )
    assert by_default.settings["steps"] == 2000
    assert_same_law(by_default, fine)
    assert_not_the_law(fine, coarse)


def test_a_drift_too_strong_for_the_default_steps_is_refused() -> None:
    with pytest.raises(st.InputError, match=r"needs 2e\+07 steps: choose a larger a"):
        st.sde.sample(dense(st.Smooth(np.tanh, 0.0, -2.0), 1e-3), V0, 10, seed=0)


def test_a_path_that_explodes_within_a_step_is_outside_the_window() -> None:
    e = st.sde.sample(dense(SOFTPLUS, 0.1), 4 * np.eye(2), 500, seed=0, record=1)
    exploded = e.stopped <= 100
    assert exploded.any()
    assert (e.eigenvalues[exploded, 0, 0] > e.settings["stop"][1]).all()
    assert np.isfinite(e.covariance).all()
