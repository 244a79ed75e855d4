"""Kernels without weights have the distribution of those of real networks, and their dispersion is the formula's."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from assertions import FALSE_ALARM, assert_mean, z_limit, z_score
from scipy.stats import ks_2samp

torch = pytest.importorskip("torch")

import shaped_transformer as st
from shaped_transformer.numerics.arrays import Floats

pytestmark = pytest.mark.slow

SAMPLES = 1500
WIDTH = 16
INPUTS = np.random.default_rng(0).standard_normal((2, WIDTH)) + 0.5
TOKENS = np.random.default_rng(1).standard_normal((2, 3, WIDTH)) + 0.5

SMALLEST = 1e-30
"""So that the kernel of a network that a whole layer of ReLUs has set to zero has no undefined statistic."""

STATISTICS: dict[str, Callable[[Floats], Floats]] = {
    "first input": lambda theta: theta[:, 0, 0],
    "second input, second output": lambda theta: theta[:, 3, 3],
    "two inputs": lambda theta: theta[:, 0, 2],
    "two outputs": lambda theta: theta[:, 0, 1],
    "two inputs, two outputs": lambda theta: theta[:, 0, 3],
    "cosine of two inputs": lambda theta: theta[:, 0, 2] / np.sqrt(theta[:, 0, 0] * theta[:, 2, 2] + SMALLEST),
    "determinant": lambda theta: np.log(np.maximum(np.linalg.det(theta), SMALLEST)),
}


def _mlp(activation: st.ShapedReLU | st.ShapedSmooth, width: int = WIDTH) -> st.Architecture:
    branch = st.Residual(st.MLP(activation, hidden_width=width), scale=0.5)
    return st.Architecture(WIDTH, 4, (branch,))


def _block(heads: int = 2) -> st.Architecture:
    return st.shaped_transformer(WIDTH, 3, gamma=0.5, tau0=0.5, heads=heads)


RIGHT: dict[str, st.ntk.Perceptron | st.Architecture] = {
    "ReLU": st.ntk.Perceptron(WIDTH, 4),
    "shaped ReLU": st.shaped_mlp(WIDTH, 5, activation=st.ShapedReLU(1.0, -2.0)),
    "shaped tanh": st.ntk.Perceptron(WIDTH, 5, st.ShapedSmooth("tanh", a=0.5), 1.0),
    "residual": _mlp(st.ShapedReLU(1.0, -2.0)),
    "attention": _block(),
}
WRONG: dict[str, st.ntk.Perceptron | st.Architecture] = {
    "ReLU": st.ntk.Perceptron(WIDTH, 4, weight_variance=2.1),
    "shaped ReLU": st.shaped_mlp(WIDTH, 5, activation=st.ShapedReLU(1.0, -1.2)),
    "shaped tanh": st.ntk.Perceptron(WIDTH, 5, st.ShapedSmooth("tanh", a=0.45), 1.0),
    "residual": _mlp(st.ShapedReLU(1.0, -2.0), 13),
    "attention": _block(1),
}


def _inputs(name: str) -> Floats:
    return TOKENS if name == "attention" else INPUTS


@functools.cache
def real(name: str) -> Floats:
    """Kernels of freshly initialised modules, from their Jacobians."""
    x = torch.as_tensor(_inputs(name))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kernels = [st.ntk.of(st.ntk.module(RIGHT[name], 2).double(), x) for _ in range(SAMPLES)]
    return np.stack(kernels)


def differences(first: Floats, second: Floats) -> dict[str, float]:
    """The p-values of the statistics that differ, at the joint level `FALSE_ALARM`."""
    found = {
        name: float(ks_2samp(statistic(first), statistic(second), method="asymp").pvalue)
        for name, statistic in STATISTICS.items()
    }
    print({name: f"{p:.2g}" for name, p in found.items()})  # noqa: T201
    return {name: p for name, p in found.items() if p < FALSE_ALARM / len(found)}


@pytest.mark.parametrize("name", RIGHT)
def test_kernels_without_weights_have_the_distribution_of_real_ones(name: str) -> None:
    drawn = st.ntk.sample(RIGHT[name], _inputs(name), samples=4 * SAMPLES, seed=0, outputs=2)
    assert not differences(real(name), drawn)


@pytest.mark.parametrize("name", RIGHT)
def test_a_slightly_wrong_network_is_noticed(name: str) -> None:
    assert differences(real(name), st.ntk.sample(WRONG[name], _inputs(name), samples=4 * SAMPLES, seed=0, outputs=2))


def test_models_without_weights_have_the_distribution_of_real_ones() -> None:
    perceptron = st.ntk.Perceptron(WIDTH, 4)
    model = st.weightless.build(lambda: st.ntk.module(perceptron, 2), seed=0, dtype=torch.float64)
    kernels = []
    for seed in range(SAMPLES // 3):
        st.weightless.redraw(model, seed=seed)
        kernels.append(st.ntk.of(model, torch.as_tensor(INPUTS)))
    assert not differences(real("ReLU"), np.stack(kernels))


@pytest.mark.parametrize("weights", [False, True])
def test_single_precision_and_real_weights_have_the_same_distribution(weights: bool) -> None:
    dtype: Literal["float32", "float64"] = "float64" if weights else "float32"
    found = st.ntk.sample(RIGHT["ReLU"], INPUTS, samples=4 * SAMPLES, seed=1, outputs=2, weights=weights, dtype=dtype)
    assert not differences(real("ReLU"), found)


DISPERSIONS = [
    (16, 3, 1.0, True, -(16.0**0.5)),  # c₋ of a slope s₋ = 0
    (16, 3, 2.0, True, -(16.0**0.5)),
    (16, 3, 3.0, True, -(16.0**0.5)),
    (20, 4, 2.0, False, -(20.0**0.5)),
    (50, 10, 2.0, False, -(50.0**0.5)),
    (16, 6, 1.0, True, -1.0),
    (20, 12, 1.0, False, -1.5),
]


def influences(kernels: Floats) -> Floats:
    """Numbers whose mean is E Θ²/(E Θ)² to first order in the errors of the means."""
    z = kernels / kernels.mean()
    ratio = np.mean(z**2)
    return z**2 - 2 * ratio * (z - 1)


@pytest.mark.parametrize(("width", "depth", "variance", "biases", "c_minus"), DISPERSIONS)
def test_the_dispersion_is_the_formulas(width: int, depth: int, variance: float, biases: bool, c_minus: float) -> None:
    mlp = st.ntk.Perceptron(width, depth, st.ShapedReLU(0.0, c_minus), variance, input_width=7)
    x = np.full((1, 7), (2 / 7) ** 0.5)  # ‖x‖² = 2
    kernels = st.ntk.sample(mlp, x, samples=200_000, seed=0, bias_gradients=biases)[:, 0, 0]
    options: dict[str, Any] = {"bias_gradients": biases, "input_norm": 2.0, "input_width": 7}
    options["slopes"] = (1.0, 1 + c_minus / width**0.5)
    assert_mean(influences(kernels), st.ntk.dispersion(width, depth, variance, **options))
    wrong = st.ntk.dispersion(width, depth + 1, variance, **options)
    assert abs(z_score(influences(kernels), wrong)) > z_limit()


def test_norms_that_were_independent_are_excluded() -> None:
    """Forward and backward vectors keep their inner product; without that the middle factor is (1 + 1/M)^m."""
    width, depth = 50, 10
    layers = np.arange(depth + 1)
    distance = np.abs(layers[:, None] - layers)
    independent = np.mean((1 + 5 / width) ** (depth - distance) * (1 + 1 / width) ** distance)
    kernels = st.ntk.sample(st.ntk.Perceptron(width, depth), np.ones((1, width)), samples=300_000, seed=1)[:, 0, 0]
    assert_mean(influences(kernels), st.ntk.dispersion(width, depth))
    assert z_score(influences(kernels), float(independent)) > z_limit()
