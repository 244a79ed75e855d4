"""Drift and diffusion of the limit against the theory, worked examples and finite steps (theory §4, §5)."""

import math
from typing import Any

import numpy as np
import pytest
from assertions import z_limit
from scipy.integrate import solve_ivp

import shaped_transformer as st
from shaped_transformer.design.layers.base import Layer
from shaped_transformer.numerics import linalg
from shaped_transformer.numerics.draws import Draws

V = np.array([[1, 0.3, -0.2], [0.3, 1.4, 0.5], [-0.2, 0.5, 0.8]])
ORDER = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]

WORKED = {
    "full": ([0.3015, 0.0759, -0.0534, 0.2325, 0.0507, 0.1483], [2.046, 1.432, 0.875, 3.664, 1.335, 1.294]),
    "causal": ([0, 0, 0.0236, 0.3703, 0.0667, 0.1483], [1.741, 1.361, 0.792, 4.049, 1.336, 1.294]),
}


@pytest.mark.parametrize("mask", ["full", "causal"])
def test_coefficients_are_those_of_the_worked_example(mask: str) -> None:
    arch = st.Architecture(300, 150, (st.Residual(st.ShapedAttention(tau0=0.7, mask=mask), scale=0.8),))
    drift, diffusion = st.sde.drift(arch, V), st.sde.diffusion(arch, V)
    want_drift, want_diffusion = WORKED[mask]
    np.testing.assert_allclose([drift[i] for i in ORDER], want_drift, rtol=0, atol=5.01e-5)
    np.testing.assert_allclose([diffusion[i + i] for i in ORDER], want_diffusion, rtol=0, atol=5.01e-4)


def test_the_worked_example_notices_a_gamma_off_by_a_thousandth() -> None:
    arch = st.Architecture(300, 150, (st.Residual(st.ShapedAttention(tau0=0.7), scale=0.8 * 1.001),))
    drift = st.sde.drift(arch, V)
    assert np.max(np.abs([drift[i] for i in ORDER] - np.array(WORKED["full"][0]))) > 5.01e-5


def test_first_causal_token_has_no_attention_drift() -> None:
    arch = st.Architecture(300, 150, (st.Residual(st.ShapedAttention(tau0=0.7, mask="causal"), scale=0.8),))
    assert st.sde.drift(arch, V)[0, 0] == 0


def test_the_general_drift_without_mask_is_that_of_the_special_case() -> None:
    """Theory §4 gives a formula for the case without mask; a mask of ones uses the general formula."""
    m = len(V)
    centring = np.eye(m) - 1 / m
    vc = centring @ V @ centring
    r = np.diagonal(vc) - np.trace(vc) / m
    q = np.outer(np.diagonal(V), V @ r) / (2 * m)
    want = (np.sum(vc**2) / m**2 * V + q + q.T) / 0.7**2
    arch = st.Architecture(300, 150, (st.Residual(st.ShapedAttention(tau0=0.7, mask=np.ones((3, 3))), scale=0.8),))
    np.testing.assert_allclose(st.sde.drift(arch, V), 0.8**2 * want, rtol=1e-12)


ATTENTION, MLP = st.Residual(st.ShapedAttention(tau0=0.7), 0.5), st.Residual(st.MLP(st.ShapedReLU(0, -1)), 0.5)


def test_coefficients_add_over_the_layers_of_a_block() -> None:
    both, one, other = (st.Architecture(100, 50, block) for block in ((ATTENTION, MLP), (ATTENTION,), (MLP,)))
    np.testing.assert_allclose(st.sde.drift(both, V), st.sde.drift(one, V) + st.sde.drift(other, V))
    np.testing.assert_allclose(st.sde.diffusion(both, V), st.sde.diffusion(one, V) + st.sde.diffusion(other, V))


def test_logit_gain_acts_as_an_inverse_temperature() -> None:
    plain = st.Architecture(100, 50, (ATTENTION,))
    hotter = st.Architecture(100, 50, (st.Residual(st.ShapedAttention(tau0=1.4, logit_gain=2.0), 0.5),))
    np.testing.assert_allclose(st.sde.drift(hotter, V), st.sde.drift(plain, V))


LAYERS: list[Layer] = [
    st.Residual(st.ShapedAttention(tau0=0.5), 0.8),
    st.Residual(st.ShapedAttention(tau0=0.5, mask="causal", heads=4, value_width=10), 0.8),
    st.Residual(st.MLP(st.ShapedReLU(1.0, -1.0), hidden_width=200), 0.8),
    st.Dense(st.ShapedSmooth("tanh", 1.0)),
]


@pytest.mark.parametrize("layer", LAYERS, ids=["attention", "causal heads", "wide mlp", "dense"])
def test_the_noise_of_a_layer_has_its_diffusion_as_covariance(layer: Layer) -> None:
    n, samples = 100, 200_000
    draws = Draws(3, 2, 0, samples)
    noise = layer.noise(np.broadcast_to(np.linalg.cholesky(V), (samples, 3, 3)), n, draws)
    entries = np.stack([noise[:, a, b] for a, b in ORDER], axis=1)
    sigma = layer.diffusion(V, n)
    want = np.array([[sigma[i + j] for j in ORDER] for i in ORDER])

    def worst(expected: np.ndarray) -> float:
        products = entries[:, :, None] * entries[:, None, :]
        error = products.std(axis=0) / math.sqrt(samples)
        return float(np.max(np.abs(products.mean(axis=0) - expected) / error))

    assert worst(want) < z_limit(36)
    assert worst(1.1 * want) > z_limit(36)


LIMITS: list[Layer] = [
    *LAYERS,
    st.Dense(st.ShapedReLU(1.0, -2.0)),
    st.Residual(st.MLP(st.ShapedSmooth(st.Smooth("numpy:expm1", 1.0, 1.0), 0.8), input_gain=1.3), 0.8),
]


@pytest.mark.parametrize("layer", LIMITS, ids=lambda layer: type(getattr(layer, "branch", layer)).__name__)
def test_one_wishart_step_changes_the_mean_by_the_drift(layer: Layer) -> None:
    """E V' − V is h·b(V) + O(h²)."""
    n, h, samples = 100, 0.02, 400_000
    factor = np.broadcast_to(np.linalg.cholesky(V), (samples, 3, 3))
    v = linalg.gram(layer.limit_step(factor, h, n, Draws(4, 2, 0, samples)))
    moved = (v.mean(axis=0) - V) / h
    error = v.std(axis=0) / math.sqrt(samples) / h
    drift = layer.drift(V, n)
    second_order = 8 * h * (1 + np.abs(drift).max())  # measured: below half of this for all layers here
    assert (np.abs(moved - drift) < z_limit(9) * error + second_order).all()
    assert not (np.abs(moved + drift) < z_limit(9) * error + second_order).all(), "the sign must matter"


@pytest.mark.parametrize("phi", ["tanh", "erf", "arctan", "sin"])
def test_the_change_at_finite_width_tends_to_the_drift(phi: str) -> None:
    """n·(E V' − V) for one token, by quadrature at width n, against b (theory §4)."""
    activation, q = st.ShapedSmooth(phi, 1.2), 1.7
    drift = activation.drift(np.array([[q]]))[0, 0]
    errors = [abs(_moved(activation, q, n) - drift) for n in (1000, 4000)]
    assert errors[1] < 0.3 * errors[0] < 0.01


def test_under_softsign_the_change_grows_like_the_root_of_the_width() -> None:
    """So n·(E V' − V) has no limit. An early version of the theory counted softsign among the smooth activations.

    φ(x) = x − x|x| + …, so c·E σ(√q g)² = q + 2·E|g|³·q(1 − √q)/(a√n) + O(1/n), E|g|³ = 2√(2/π).
    """
    activation, q, a = st.ShapedSmooth("softsign", 1.2), 1.7, 1.2
    want = 4 * math.sqrt(2 / math.pi) * q * (1 - math.sqrt(q)) / a
    for n in (10_000, 160_000):
        np.testing.assert_allclose(_moved(activation, q, n) / math.sqrt(n), want, rtol=8 / math.sqrt(n))


def test_softsign_is_refused_by_the_limit_and_drawn_by_the_chain() -> None:
    arch = st.shaped_mlp(100, 50, activation=st.ShapedSmooth("softsign", 1.2))
    with pytest.raises(st.NoProportionalLimit, match="second derivative"):
        st.sde.drift(arch, V)
    assert st.chain.sample(arch, V, 4, seed=0).samples == 4


def _moved(activation: st.ShapedSmooth, q: float, n: int) -> float:
    """Return n·(E V' − V) for one token of variance q."""
    return n * (activation.second_moment(n, math.sqrt(q)) / activation.second_moment(n) - q)


RELU = st.ShapedReLU(1.0, -1.0)


def test_the_kernel_of_a_shaped_relu_is_that_of_quadrature() -> None:
    """The closed form at width 1/h against E σ(u)σ(v)."""
    activation, h = RELU, 0.04
    factor = activation.limit_kernel(np.linalg.cholesky(V), h)
    kernel = factor @ factor.T
    nodes, weights = np.polynomial.hermite_e.hermegauss(150)
    weights = weights / math.sqrt(2 * math.pi)
    u = math.sqrt(V[0, 0]) * nodes[:, None] + 0 * nodes
    rest = math.sqrt(V[1, 1] - V[0, 1] ** 2 / V[0, 0])
    w = V[0, 1] / math.sqrt(V[0, 0]) * nodes[:, None] + rest * nodes
    product = activation.value(u, 1 / h) * activation.value(w, 1 / h)
    want = weights @ product @ weights / activation.second_moment(1 / h)
    np.testing.assert_allclose(kernel[0, 1], want, atol=1e-4)
    assert abs(kernel[0, 1] - V[0, 1]) > 5e-3


def test_the_kernel_of_a_shaped_relu_has_its_drift() -> None:
    small = RELU.limit_kernel(np.linalg.cholesky(V), 1e-6)
    np.testing.assert_allclose((small @ small.T - V) / 1e-6, RELU.drift(V), atol=1e-3)


smooth = pytest.mark.parametrize("phi", ["tanh", st.Smooth("numpy:expm1", 1.0, 1.0)])


@smooth
def test_the_kernel_of_a_smooth_activation_has_its_drift(phi: Any) -> None:
    """The distance of the kernel from V + h·b_σ falls as h²."""
    activation = st.ShapedSmooth(phi, 1.2)
    off = []
    for h in (1e-3, 1e-4):
        factor = activation.limit_kernel(np.linalg.cholesky(V), h)
        off.append(np.max(np.abs(factor @ factor.T - V - h * activation.drift(V))))
    assert off[0] < 1e-4
    assert off[1] < 0.011 * off[0]


@smooth
def test_norms_under_a_smooth_activation_follow_their_equation_over_any_step(phi: Any) -> None:
    """dv/dt = (β/a²)·v(v − 1)."""
    activation = st.ShapedSmooth(phi, 1.2)
    h, rate, v = 0.1, (3 / 4 * activation.smooth.d2**2 + activation.smooth.d3) / 1.2**2, V[1, 1]  # type: ignore[operator]
    solved = solve_ivp(lambda _, y: rate * y * (y - 1), (0, h), [v], rtol=1e-10, atol=1e-12).y[0, -1]
    factor = activation.limit_kernel(np.linalg.cholesky(V), h)
    np.testing.assert_allclose((factor @ factor.T)[1, 1], solved, rtol=1e-8)
