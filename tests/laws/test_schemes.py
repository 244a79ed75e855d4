"""The two schemes of the limit: their order of convergence, positivity and agreement (theory §4)."""

import math

import numpy as np
import pytest
from assertions import assert_covariance, assert_not_the_law, assert_same_law

import shaped_transformer as st
from shaped_transformer.numerics import linalg

V0 = np.array([[1.2, 0.3, -0.2], [0.3, 1.4, 0.5], [-0.2, 0.5, 0.8]])


def order(steps: tuple[int, ...], errors: list[float]) -> float:
    """Return the fitted rate at which the errors fall with the number of steps."""
    return float(-np.polyfit(np.log(steps), np.log(np.abs(errors)), 1)[0])


@pytest.mark.slow
def test_wishart_scheme_is_of_weak_order_one_in_its_noise() -> None:
    """E log det V_T of the linear limit is log det V0 − T m(m+1)/2."""
    want, tried = np.linalg.slogdet(V0)[1] - 0.5 * 6, (4, 8, 16, 32)
    errors = []
    for steps in tried:
        limit = st.sde.sample(st.deep_linear(100, 50), V0, 100_000, seed=1, steps=steps, record=1)
        errors.append(limit.log_determinant().mean() - want)
    assert abs(order(tried, errors) - 1) < 0.3, errors


@pytest.mark.slow
def test_wishart_scheme_is_of_weak_order_one_in_its_drift() -> None:
    """E ρ_T of two tokens under a shaped ReLU, against the backward equation of dρ solved on a grid."""
    bend, start, tried = 3.0, -0.6, (2, 4, 8, 16)
    want = mean_correlation(bend, 0.5, start)
    arch, v0 = st.shaped_mlp(100, 50, activation=st.ShapedReLU(0.0, -bend)), st.inputs.equicorrelated(2, start)
    errors = []
    for steps in tried:
        limit = st.sde.sample(arch, v0, 200_000, seed=2, steps=steps, record=1)
        errors.append(limit.correlation()[:, 0, 0, 1].mean() - want)
    assert abs(order(tried, errors) - 1) < 0.3, errors


def mean_correlation(bend: float, time: float, start: float) -> float:
    """Return u(time, start), ∂u/∂t = [ν − ρ(1−ρ²)/2] ∂u/∂ρ + ½(1−ρ²)² ∂²u/∂ρ², u(0, ρ) = ρ, solved in x = artanh ρ."""
    x = np.linspace(-9, 9, 1801)
    rho, gap = np.tanh(x), x[1] - x[0]
    nu = bend**2 / (2 * np.pi) * (np.sqrt(1 - rho**2) - rho * np.arccos(rho))
    # With dρ = (1−ρ²) dB the variable x = artanh ρ has unit noise; Itô adds ρ to its drift.
    drift = (nu - rho * (1 - rho**2) / 2) / (1 - rho**2) + rho
    n = len(x)
    generator = np.zeros((n, n))
    inside = np.arange(1, n - 1)
    generator[inside, inside - 1] = 0.5 / gap**2 - drift[inside] / (2 * gap)
    generator[inside, inside + 1] = 0.5 / gap**2 + drift[inside] / (2 * gap)
    generator[inside, inside] = -1 / gap**2
    steps = 2000
    implicit = np.linalg.inv(np.eye(n) - time / steps / 2 * generator)
    advance = implicit @ (np.eye(n) + time / steps / 2 * generator)
    u = np.linalg.matrix_power(advance, steps) @ rho
    return float(np.interp(math.atanh(start), x, u))


@pytest.mark.slow
def test_wishart_scheme_is_of_weak_order_one_for_attention() -> None:
    """Mean effective rank, against a finer reference whose error is removed to first order."""
    arch, tried = st.shaped_attention_only(100, 40, gamma=0.8, tau0=1.2), (2, 4, 8, 16)

    def mean(steps: int) -> float:
        limit = st.sde.sample(arch, V0[:2, :2], 150_000, seed=3, steps=steps, record=1)
        return float(limit.effective_rank().mean())

    coarse, fine = [mean(steps) for steps in tried], mean(64)
    want = fine + (fine - coarse[-1]) / 3  # Richardson for order one, 64 against 16 steps
    assert abs(order(tried, [c - want for c in coarse]) - 1) < 0.3, (coarse, fine)


FULL = st.Architecture(
    100,
    40,
    (
        st.Residual(st.ShapedAttention(tau0=1.2, heads=2, mask="causal"), 0.6),
        st.Residual(st.MLP(st.ShapedSmooth("tanh", 1.0), hidden_width=200), 0.6),
    ),
)


def test_wishart_scheme_stays_positive_semi_definite_even_from_singular_input() -> None:
    for v0 in (V0, np.ones((3, 3)), st.inputs.from_text(max_tokens=8, position_weight=0)):
        limit = st.sde.sample(FULL, v0, 2000, seed=4, steps=st.sde.fewest_steps(FULL, len(v0)), record=5)
        assert_covariance(limit.covariance)


@pytest.mark.slow
def test_euler_converges_to_the_same_law() -> None:
    wishart = st.sde.sample(FULL, V0, 10_000, seed=5, steps=100, record=1)
    euler = st.sde.sample(FULL, V0, 10_000, seed=5, steps=200, record=1, scheme="euler")
    assert_same_law(wishart, euler)
    hotter = st.Architecture(
        100, 40, (st.Residual(st.ShapedAttention(tau0=1.08, heads=2, mask="causal"), 0.66), FULL.block[1])
    )
    assert_not_the_law(wishart, st.sde.sample(hotter, V0, 10_000, seed=5, steps=200, record=1, scheme="euler"))


def test_coarse_euler_stops_before_a_matrix_becomes_indefinite() -> None:
    euler = st.sde.sample(FULL, V0, 2000, seed=6, steps=4, record=1, scheme="euler")
    assert np.any(euler.stopped <= 40)
    assert_covariance(euler.covariance)
    assert (linalg.diagonal(euler.covariance) > 0).all()
