"""Kernels of many networks: seeds, threads, degenerate inputs, and errors; their laws are tests/laws."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import shaped_transformer as st
from shaped_transformer.ntk.batched import cholesky, factor, gram, inverse

MLP = st.ntk.Perceptron(width=12, depth=3)
RNG = np.random.default_rng(0)
INPUTS = RNG.standard_normal((2, 12))


def test_draws_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shaped_transformer.ntk.sampling.MAX_BATCH", 8)
    one = st.ntk.sample(MLP, INPUTS, samples=20, seed=3, outputs=2, workers=1)
    other = st.ntk.sample(MLP, INPUTS, samples=33, seed=3, outputs=2, workers=2)
    np.testing.assert_array_equal(one, other[:20])
    assert not np.isclose(one[:8], other[8:16]).any()
    assert not np.isclose(one, st.ntk.sample(MLP, INPUTS, samples=20, seed=4, outputs=2)).any()


@pytest.mark.parametrize("weights", [False, True])
def test_kernels_are_positive_semi_definite_and_outputs_share_the_last_layer(weights: bool) -> None:
    found = st.ntk.sample(MLP, INPUTS, samples=50, seed=0, outputs=3, weights=weights)
    assert found.shape == (50, 6, 6)
    np.testing.assert_allclose(found, found.swapaxes(1, 2), rtol=1e-9, atol=1e-9)
    assert (np.linalg.eigvalsh(found)[:, 0] > -1e-9 * np.trace(found, axis1=1, axis2=2)).all()


def test_equal_and_zero_inputs_have_equal_and_zero_kernels() -> None:
    x = np.stack([INPUTS[0], INPUTS[0], 0 * INPUTS[0]])
    found = st.ntk.sample(MLP, x, samples=50, seed=0)
    np.testing.assert_allclose(found[:, 0, 0], found[:, 0, 1], rtol=1e-7)
    np.testing.assert_allclose(found[:, 0, 0], found[:, 1, 1], rtol=1e-7)
    assert not found[:, 2].any()


def test_more_inputs_than_coordinates_have_kernels() -> None:
    found = st.ntk.sample(st.ntk.Perceptron(width=3, depth=2), RNG.standard_normal((7, 3)), samples=20, seed=0)
    assert np.isfinite(found).all()


def test_single_precision_draws_differ_by_rounding_only_in_law() -> None:
    found = st.ntk.sample(MLP, INPUTS, samples=20, seed=0, dtype="float32")
    assert found.dtype == np.float64
    assert np.isfinite(found).all()


def test_bias_gradients_add_to_the_kernel_of_the_same_networks() -> None:
    without = st.ntk.sample(MLP, INPUTS, samples=50, seed=0)[:, 0, 0]
    assert (st.ntk.sample(MLP, INPUTS, samples=50, seed=0, bias_gradients=True)[:, 0, 0] >= without + 1).all()


def test_factors_of_gram_matrices_leave_out_what_depends_on_others() -> None:
    x = torch.randn(3, 4, 6, dtype=torch.float64)
    x[0, 2] = x[0, 0] - 2 * x[0, 1]
    x[1, 1] = 0
    products = gram(x)
    lower = cholesky(products)
    torch.testing.assert_close(lower @ lower.mT, products)
    assert not lower[0, :, 2].any()
    assert not lower[1, :, 1].any()
    onto = products @ inverse(lower) @ products  # the projection onto the span is complete
    torch.testing.assert_close(onto, products)


@pytest.mark.parametrize("angle", [1.0, 1e-2, 1e-4])
def test_small_angles_in_single_precision_are_kept(angle: float) -> None:
    one, other = torch.randn(2, 5, 1, 100)
    x = torch.cat((one, one + angle * other), 1)
    products, lower = factor(x)
    torch.testing.assert_close(lower @ lower.mT, products)
    precise = cholesky(gram(x))
    torch.testing.assert_close(lower[:, 1, 1], precise[:, 1, 1], rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("network", "inputs", "options", "message"),
    [
        (MLP, np.ones((2, 11)), {}, r"inputs must be \(inputs, 12\) for this network"),
        (MLP, np.ones((2, 3, 12)), {}, r"inputs must be \(inputs, 12\) for this network"),
        (st.deep_linear(4, 2), np.ones((2, 3, 5)), {}, r"or \(inputs, tokens, 4\)"),
        (MLP, np.full((1, 12), np.nan), {}, "finite numbers"),
        (MLP, np.ones((0, 12)), {}, "inputs must be"),
        (MLP, "text", {}, "inputs must be"),
        (MLP, INPUTS, {"samples": 0}, "samples must be"),
        (MLP, INPUTS, {"outputs": 0}, "outputs must be"),
        (MLP, INPUTS, {"outputs": [0]}, "outputs must be"),
        (MLP, INPUTS, {"workers": 0}, "workers must be"),
        (MLP, INPUTS, {"seed": -1}, "seed must be"),
        (MLP, INPUTS, {"dtype": "float16"}, "dtype must be"),
        (MLP, INPUTS, {"samples": 10**12}, "ask for fewer samples"),
        (["layers"], INPUTS, {}, "an Architecture or a Perceptron is expected"),
        (torch.nn.Linear(2, 2), INPUTS, {}, "an Architecture or a Perceptron is expected"),
        (st.ntk.Perceptron(4, 2, weight_variance=1e160), np.ones((1, 4)), {}, "kernels overflow: use fewer layers"),
    ],
)
def test_wrong_arguments_are_one_line(network: Any, inputs: Any, options: Any, message: str) -> None:
    with pytest.raises(st.InputError, match=message) as error:
        st.ntk.sample(network, inputs, **({"samples": 2, "seed": 0} | options))
    assert "\n" not in str(error.value)


def test_a_perceptron_is_a_definition() -> None:
    perceptron = st.ntk.Perceptron(8, 2, st.ShapedSmooth("tanh", a=1.0), 1.0, input_width=5)
    assert st.ntk.Perceptron.from_dict(perceptron.to_dict()) == perceptron
    assert perceptron.coordinates == 5
    with pytest.raises(st.DefinitionError, match="weight_variance"):
        st.ntk.Perceptron(8, 2, weight_variance=-1.0)
