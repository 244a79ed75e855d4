"""The kernel of infinitely wide networks: closed forms, quadrature, wide networks, scikit-learn's rules."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import shaped_transformer as st
from shaped_transformer.bayes import infinite_width
from shaped_transformer.bayes.infinite_width import covariance, variance

RNG = np.random.default_rng(0)
X, OTHER = RNG.standard_normal((5, 3)), RNG.standard_normal((2, 3))
relu, gelu = st.Activation("relu"), st.Activation("gelu")
WIDTH = 2000

ARCHITECTURES = {
    "relu": st.Architecture(WIDTH, 3, (st.Dense(relu),)),
    "gelu": st.Architecture(WIDTH, 2, (st.Dense(gelu),)),
    "smooth": st.Architecture(WIDTH, 2, (st.Dense(st.ShapedSmooth("tanh", 0.03)),)),
    "shaped": st.Architecture(WIDTH, 3, (st.Residual(st.MLP(st.ShapedReLU(0.0, -30.0)), 0.7),)),
    "linear": st.deep_linear(WIDTH, 2),
    "pre": st.Architecture(WIDTH, 2, (st.Residual(st.MLP(gelu, input_gain=1.3), 1.0, 1.0, "pre", "layer"),)),
    "post": st.Architecture(WIDTH, 2, (st.Residual(st.MLP(st.Activation("silu"), normalise=False), 1.0, 1.0, "post"),)),
    "means": st.Architecture(WIDTH, 2, (st.Dense(gelu), st.Residual(st.MLP(relu), 0.8, 1.0, "pre", "layer"))),
    "centred": st.Architecture(WIDTH, 2, (st.Dense(relu), st.Residual(st.MLP(relu), 0.8, 1.0, "post", "layer"))),
}
each = pytest.mark.parametrize("arch", ARCHITECTURES.values(), ids=ARCHITECTURES)


@each
def test_it_is_the_mean_of_wide_networks(arch: st.Architecture) -> None:
    """Up to a bias of order 1/n, which is 15 times smaller than the difference to a network without one layer."""
    drawn = st.bayes.sample(arch, X, 40, seed=0, workers=1).covariance
    expected = covariance(arch, X)
    tolerance = 5 * drawn.std(axis=0) / np.sqrt(40) + 2 / WIDTH * np.abs(expected).max()
    assert (np.abs(drawn.mean(axis=0) - expected) < tolerance).all()
    shorter = st.Architecture(arch.width, arch.depth - 1, arch.block)
    if arch != ARCHITECTURES["linear"]:  # its kernel is V0 at every depth
        assert (np.abs(drawn.mean(axis=0) - covariance(shorter, X)) > tolerance).any()


@each
def test_pairs_and_variances_are_parts_of_the_covariance(arch: st.Architecture) -> None:
    whole = covariance(arch, np.vstack([X, OTHER]))
    assert_allclose(covariance(arch, X, OTHER), whole[:5, 5:], rtol=1e-7, atol=1e-9)
    assert_allclose(variance(arch, X), np.diag(whole)[:5], rtol=1e-12)
    assert_allclose(whole, whole.T, rtol=0)
    assert np.linalg.eigvalsh(whole).min() > -1e-9


def test_relu_layers_are_the_arc_cosine_recursion() -> None:
    v = st.inputs.from_vectors(X)
    for _ in range(3):
        scale = np.sqrt(np.outer(np.diag(v), np.diag(v)))
        angle = np.arccos(np.clip(v / scale, -1, 1))
        v = scale / np.pi * (np.sin(angle) + (np.pi - angle) * np.cos(angle))
    assert_allclose(covariance(ARCHITECTURES["relu"], X), v, rtol=1e-7)


def test_quadrature_agrees_with_closed_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly for a linear network, and to the error of a kink for ReLUs; Williams 1997 for the error function."""
    expected = {name: covariance(ARCHITECTURES[name], X) for name in ("linear", "shaped")}
    erf = st.Architecture(50, 1, (st.Dense(st.ShapedSmooth("erf", 0.2)),))
    s, v = 0.2 * np.sqrt(50), st.inputs.from_vectors(X)
    inner = np.pi / 2 / s**2 * v  # erf(√π/2·x/s), whose variance argument is 2·π/4
    size = np.sqrt(np.outer(1 + np.diag(inner), 1 + np.diag(inner)))
    unit = np.pi / 2 / s**2
    closed = np.arcsin(inner / size) / np.arcsin(unit / (1 + unit))
    assert_allclose(covariance(erf, X), closed, rtol=1e-5)
    monkeypatch.setattr(infinite_width, "_bent", lambda *_: None)
    assert_allclose(covariance(ARCHITECTURES["linear"], X), expected["linear"], rtol=1e-9, atol=1e-12)
    assert_allclose(covariance(ARCHITECTURES["shaped"], X), expected["shaped"], atol=3e-3)


def test_a_process_with_the_kernel_is_fitted() -> None:
    pytest.importorskip("sklearn")
    from sklearn.base import clone
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, WhiteKernel

    kernel = st.bayes.InfiniteWidthKernel(ARCHITECTURES["relu"])
    assert clone(kernel) == kernel
    assert not kernel.is_stationary()
    assert kernel(X, eval_gradient=True)[1].shape == (5, 5, 0)
    assert_allclose(kernel.diag(X), np.diag(kernel(X)), rtol=1e-12)
    process = GaussianProcessRegressor(ConstantKernel() * kernel + WhiteKernel(0.1))
    process.fit(np.vstack([X, OTHER]), np.arange(7.0))
    assert process.kernel_.k1.k1.constant_value != 1
    assert np.isfinite(process.predict(X, return_std=True)).all()


@pytest.mark.parametrize(
    ("arch", "message"),
    [(st.shaped_transformer(8, 1), "attention mixes the inputs"), ("relu", "an Architecture is expected")],
)
def test_other_layers_are_refused(arch: Any, message: str) -> None:
    pytest.importorskip("sklearn")
    kernel = st.bayes.InfiniteWidthKernel(arch)
    for ask in (kernel, kernel.diag):
        with pytest.raises(st.InputError, match=message):
            ask(X)
