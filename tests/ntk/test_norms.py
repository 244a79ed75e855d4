"""Norms of stream and gradient through depth: those of real networks, and the theory's where it has them."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip("torch")

import shaped_transformer as st
from shaped_transformer.ntk import Perceptron, stream_norms

ALARM = 1e-4
X = np.random.default_rng(0).standard_normal((1, 3, 16))


def logs(network: Any, x: Any, samples: int, seed: int, **options: Any) -> Any:
    """Growth of the stream through all layers, and of the gradient back, as logarithms, (samples, 2)."""
    found = stream_norms(network, x, samples, seed, **options)
    forward, backward = found.forward[..., 0], found.backward[..., 0]
    grown = np.stack([forward[:, -1] / forward[:, 0], backward[:, 0] / backward[:, -1]], axis=1)
    return np.log(np.maximum(grown, 1e-12))  # all units of a narrow layer may be off


def smallest_p(a: Any, b: Any) -> float:
    """Of two-sample tests of both, their sum and their difference."""
    parts = [(one[:, 0], one[:, 1], one.sum(1), one[:, 0] - one[:, 1]) for one in (a, b)]
    return min(4 * stats.ks_2samp(x, y).pvalue for x, y in zip(*parts, strict=True))


NETWORKS: dict[str, tuple[Any, Any, Any]] = {
    "relu": (Perceptron(16, 8), Perceptron(16, 10), X[:, 0]),
    "shaped": (st.shaped_transformer(16, 4, gamma=0.6), st.shaped_transformer(16, 4, gamma=0.7), X),
    "pre-norm": (st.pre_norm_transformer(16, 3), st.pre_norm_transformer(16, 4), X),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_they_are_those_of_real_networks_and_not_of_others(name: str) -> None:
    network, other, x = NETWORKS[name]
    real = logs(network, x, 6000, seed=1, weights=True)
    assert smallest_p(logs(network, x, 6000, seed=0), real) > ALARM
    assert smallest_p(logs(other, x, 6000, seed=0), real) < ALARM


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variance", "rate"), [("identity", 1.0, 2), ("relu", 2.0, 5)])
def test_products_of_norms_of_perceptrons_have_their_theory(name: Any, variance: float, rate: int) -> None:
    """E of forward times backward growth is [(1 + r/M)^L + 2(1 − 1/M)^L]/3 to order 1/M; independent ones have 1."""
    width, depth = 100, 30
    network = Perceptron(width, depth, st.Activation(name), weight_variance=variance)
    grown = np.exp(logs(network, np.ones((1, width)), 20_000, seed=0))
    product = grown.prod(1) / grown.mean(0).prod()
    expected = ((1 + rate / width) ** depth + 2 * (1 - 1 / width) ** depth) / 3
    error = product.std() / np.sqrt(len(product))
    assert abs(product.mean() - expected) < stats.norm.isf(ALARM / 2) * error + 3 / width
    assert abs(product.mean() - 1) > 3 * error


@pytest.mark.slow
def test_the_logarithms_of_wide_perceptrons_are_normal() -> None:
    """N(−5λ/2, 5λ) in the limit, forward and backward."""
    width, depth = 200, 20
    found = logs(Perceptron(width, depth), np.ones((1, width)), 6000, seed=0)
    for one in found.T:
        assert stats.kstest(one, stats.norm(-0.25, np.sqrt(0.5)).cdf).pvalue > ALARM
        assert stats.kstest(one, stats.norm(-0.25, np.sqrt(0.35)).cdf).pvalue < ALARM


def test_the_product_of_stream_and_gradient_is_the_output() -> None:
    """x·g is the output in all layers of a linear network: at one unit the product of the norms, elsewhere less."""
    one = stream_norms(Perceptron(1, 1, st.Activation("identity"), 1.0, 16), X[:, 0], 500, seed=1)
    output = one.forward[:, 1] * one.backward[:, 1]  # one unit: the norms' product is the squared output
    assert (one.forward[:, 0] * one.backward[:, 0] >= output * (1 - 1e-9)).all()


def test_the_first_networks_stay_the_same_and_threads_do_not_matter() -> None:
    network = Perceptron(16, 3)
    few = stream_norms(network, X[:, 0], 3, seed=5, workers=1)
    many = stream_norms(network, X[:, 0], 3000, seed=5, workers=2)
    np.testing.assert_array_equal(few.backward, many.backward[:3])
    np.testing.assert_array_equal(few.forward, many.forward[:3])
    assert repr(few) == "StreamNorms(3 samples, 3 layers, 1 inputs)"


def test_bad_input_is_refused() -> None:
    with pytest.raises(st.InputError, match="a Perceptron is expected"):
        stream_norms(torch.nn.Linear(2, 2), X, 1, 0)
    with pytest.raises(st.InputError, match="inputs must be"):
        stream_norms(Perceptron(8, 2), X[:, 0], 1, 0)
    with pytest.raises(st.InputError, match="norms overflow: use fewer layers"):
        stream_norms(Perceptron(4, 100, st.Activation("identity"), weight_variance=1e8), np.ones((1, 4)), 1, 0)
