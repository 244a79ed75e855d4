"""Closed forms that every correct implementation reproduces (theory §5)."""

import math
from typing import Literal

import numpy as np
import pytest
from assertions import FALSE_ALARM, assert_mean, z_limit, z_score
from scipy.special import digamma
from scipy.stats import kstest, norm

import shaped_transformer as st

V0 = np.array([[1, 0.3, -0.2], [0.3, 1.4, 0.5], [-0.2, 0.5, 0.8]])
LOG_DET = float(np.linalg.slogdet(V0)[1])


def linear_residual(gamma: float, width: int, depth: int) -> st.Architecture:
    return st.Architecture(width, depth, (st.Residual(st.MLP(st.Activation("identity")), gamma),))


def test_log_determinant_of_the_deep_linear_chain() -> None:
    n, d = 10, 7
    want = LOG_DET + d * sum(digamma((n - i) / 2) + math.log(2) - math.log(n) for i in range(3))
    values = st.chain.sample(st.deep_linear(n, d), V0, 20_000, seed=0, record=1).log_determinant()[:, 0]
    assert_mean(values, want)
    wrong = st.chain.sample(st.deep_linear(n + 1, d), V0, 20_000, seed=0, record=1).log_determinant()[:, 0]
    assert abs(z_score(wrong, want)) > z_limit()


GAMMA, TIME = 0.6, 0.5
KAPPA = 2 * GAMMA**2
"""Strength κ of the noise of a linear residual MLP."""


@pytest.fixture(scope="module")
def linear_limit() -> st.Ensemble:
    return st.sde.sample(linear_residual(GAMMA, 100, 50), V0, 25_000, seed=1, steps=400, record=1)


@pytest.mark.slow
def test_linear_limit_keeps_the_mean(linear_limit: st.Ensemble) -> None:
    """E V_T = V0."""
    for i in range(3):
        for j in range(i + 1):
            assert_mean(linear_limit.covariance[:, 0, i, j], V0[i, j])


@pytest.mark.slow
def test_log_determinant_of_the_linear_limit_falls_in_proportion_to_time(linear_limit: st.Ensemble) -> None:
    """E log det V_T = log det V0 − κ T m(m+1)/2. A κ 20 % off is noticed."""
    log_det = linear_limit.log_determinant()[:, 0]
    # The bias of 400 steps is below a standard error: it is about 6·h·κ·T = 0.003, one standard error is 0.009.
    assert_mean(log_det, LOG_DET - KAPPA * TIME * 6)
    assert abs(z_score(log_det, LOG_DET - 1.2 * KAPPA * TIME * 6)) > z_limit()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["wishart", "euler"])
def test_the_norm_of_one_linear_token_is_log_normal(scheme: Literal["wishart", "euler"]) -> None:
    """m = 1: log V_T ~ N(−κT, 2κT)."""
    gamma, time = 0.7, 0.5
    kappa = 2 * gamma**2
    limit = st.sde.sample(linear_residual(gamma, 100, 50), [[1.0]], 20_000, seed=2, steps=500, record=1, scheme=scheme)
    values = np.log(limit.covariance[:, 0, 0, 0])
    assert kstest(values, norm(-kappa * time, math.sqrt(2 * kappa * time)).cdf).pvalue > FALSE_ALARM
    off = 1.1 * kappa
    assert kstest(values, norm(-off * time, math.sqrt(2 * off * time)).cdf).pvalue < FALSE_ALARM


@pytest.mark.slow
def test_correlation_under_a_shaped_relu_follows_its_own_sde() -> None:
    """dρ = [ν(ρ) − ρ(1−ρ²)/2] dt + (1−ρ²) dB for two tokens, integrated by Euler–Maruyama with the same steps [NC]."""
    start, time, steps, samples = 0.3, 0.6, 300, 40_000
    arch = st.shaped_mlp(100, 60, activation=st.ShapedReLU(0.0, -4.0))
    limit = st.sde.sample(arch, st.inputs.equicorrelated(2, start), samples, seed=3, steps=steps, record=1)

    def correlation_by_euler(bend: float) -> np.ndarray:
        rho, h = np.full(samples, start), time / steps
        generator = np.random.default_rng(4)
        for _ in range(steps):
            nu = bend**2 / (2 * np.pi) * (np.sqrt(1 - rho**2) - rho * np.arccos(rho))
            step = (nu - rho * (1 - rho**2) / 2) * h
            rho = rho + step + (1 - rho**2) * math.sqrt(h) * generator.standard_normal(samples)
            rho = np.clip(rho, -1, 1)
        return rho

    seen = limit.correlation()[:, 0, 0, 1]
    assert st.statistics.two_sample(seen, correlation_by_euler(4.0)).p_value > FALSE_ALARM
    assert st.statistics.two_sample(seen, correlation_by_euler(4.4)).p_value < FALSE_ALARM


@pytest.mark.slow
def test_norms_explode_only_where_beta_is_positive() -> None:
    """m = 1: dV = (β/a²)V(V−1)dt + √2 V dB explodes with positive probability iff β = ¾φ''² + φ''' > 0 [NC]."""
    bent = st.ShapedSmooth(st.Smooth("numpy:expm1", 1.0, 1.0), 0.7)  # β = 1.75
    flat = st.ShapedSmooth("tanh", 0.7)  # β = −2
    exploded = []
    for activation in (bent, flat):
        arch = st.shaped_mlp(100, 100, activation=activation)
        limit = st.sde.sample(arch, [[1.5]], 2000, seed=5, steps=400, record=1, stop=(0, 1e6))
        exploded.append(np.mean(limit.stopped <= 100))
    assert exploded[0] > 0.2
    assert exploded[1] == 0


def test_attention_at_infinite_temperature_is_linear() -> None:
    """As τ0 → ∞, A → I, whose limit has no drift and κ = γ²(2−γ²)."""
    arch = st.shaped_attention_only(100, 50, gamma=0.8, tau0=1e6)
    np.testing.assert_allclose(st.sde.drift(arch, V0), 0, atol=1e-10)
    want = 0.64 * (2 - 0.64) * (np.einsum("ad,bw->abdw", V0, V0) + np.einsum("aw,bd->abdw", V0, V0))
    np.testing.assert_allclose(st.sde.diffusion(arch, V0), want, atol=1e-10)


def test_a_wide_mlp_follows_the_nngp_recursion() -> None:
    """At width 20,000 and depth 8, the mean covariance is that of the arc-cosine kernel recursion, to 1 %."""
    gamma, depth, n = 0.7, 8, 20_000
    arch = st.Architecture(n, depth, (st.Residual(st.MLP(st.Activation("relu")), gamma),))
    want = V0.copy()
    for _ in range(depth):
        norm_ = np.sqrt(np.diagonal(want))
        rho = want / np.outer(norm_, norm_)
        angle = np.arccos(np.clip(rho, -1, 1))
        kernel = np.outer(norm_, norm_) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi
        want = (1 - gamma**2) * want + gamma**2 * kernel
    seen = st.chain.sample(arch, V0, 400, seed=6, record=1).covariance[:, 0].mean(axis=0)
    np.testing.assert_allclose(seen, want, rtol=0.01)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(seen, V0, rtol=0.02)
