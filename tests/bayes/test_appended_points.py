"""Test points appended alone: what depends on what, and repeated or dependent inputs."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import shaped_transformer as st
from shaped_transformer.bayes.rows import echelon

RNG = np.random.default_rng(0)
X, TESTS = RNG.standard_normal((5, 4)), RNG.standard_normal((3, 4))
relu = st.Activation("relu")

ARCHITECTURES = {
    "weights in part": st.Architecture(40, 2, (st.Dense(relu),)),
    "whole weights": st.Architecture(12, 2, (st.Dense(relu),)),
    "more features than units": st.Architecture(3, 2, (st.Dense(relu),)),
    "linear": st.deep_linear(40, 2),
    "residual": st.Architecture(30, 2, (st.Residual(st.MLP(st.ShapedReLU(0.0, -1.0), hidden_width=8), 0.6),)),
    "pre-norm": st.Architecture(30, 2, (st.Residual(st.MLP(relu), 1.0, 1.0, "pre", "layer"),)),
    "post-norm": st.Architecture(30, 2, (st.Residual(st.MLP(st.Activation("gelu")), 1.0, 1.0, "post"),)),
}
each = pytest.mark.parametrize("arch", ARCHITECTURES.values(), ids=ARCHITECTURES)


@each
def test_training_inputs_do_not_depend_on_test_points(arch: st.Architecture) -> None:
    alone = st.bayes.sample(arch, X, 20, seed=1)
    for joint in (False, True):
        with_tests = st.bayes.sample(arch, X, 20, seed=1, tests=TESTS, joint=joint)
        assert_array_equal(with_tests.covariance, alone.covariance)


@each
def test_a_test_point_does_not_depend_on_the_others(arch: st.Architecture) -> None:
    together, one = (st.bayes.sample(arch, X, 20, seed=1, tests=tests) for tests in (TESTS, TESTS[1:2]))
    assert_allclose(together.cross[:, 1:2], one.cross, rtol=1e-9, atol=1e-12)
    assert_allclose(together.tests[:, 1:2], one.tests, rtol=1e-9)


@each
def test_a_test_point_that_is_a_training_input_has_its_outputs(arch: st.Architecture) -> None:
    drawn = st.bayes.sample(arch, X, 20, seed=1, tests=X[[3, 0]])
    assert_allclose(drawn.cross, drawn.covariance[:, [3, 0]], rtol=1e-9, atol=1e-12)
    assert_allclose(drawn.tests, drawn.covariance[:, [3, 0], [3, 0]], rtol=1e-9, atol=1e-12)


def test_draws_depend_on_their_number_only() -> None:
    arch = ARCHITECTURES["residual"]
    many = st.bayes.sample(arch, X, 300, seed=1, workers=2)
    assert_array_equal(st.bayes.sample(arch, X, 7, seed=1, workers=1).covariance, many.covariance[:7])
    assert not np.array_equal(st.bayes.sample(arch, X, 7, seed=2).covariance, many.covariance[:7])


@each
def test_repeated_and_dependent_inputs_change_nothing_else(arch: st.Architecture) -> None:
    """Copies and multiples of earlier inputs have no direction of their own, and later inputs keep theirs."""
    x = np.stack([X[0], X[0], X[1], 2 * X[0], X[2]])
    drawn = st.bayes.sample(arch, x, 20, seed=1, tests=TESTS)
    assert_allclose(drawn.covariance[:, 0], drawn.covariance[:, 1], rtol=1e-9, atol=1e-12)
    again = st.bayes.sample(arch, x * (1 + 1e-15), 20, seed=1, tests=TESTS)
    assert_allclose(again.cross, drawn.cross, rtol=1e-6, atol=1e-9)  # directions are no matter of rounding


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 3, 1, 2], [3, 0, 1, 2]])
def test_factors_of_dependent_rows(order: list[int]) -> None:
    rows = np.vstack([RNG.standard_normal((3, 7)), np.zeros((1, 7))])
    rows = np.vstack([rows[order], rows[order[0]] + 3 * rows[order[2]], RNG.standard_normal(7)])
    x = np.stack([rows, RNG.standard_normal((6, 7))])
    factor, basis = echelon(x)
    assert_allclose(factor @ basis, x, atol=1e-12)
    assert_allclose(factor, np.tril(factor), atol=0)
    length = np.sum(basis**2, axis=-1)
    assert set(np.round(length, 9).ravel()) == {0.0, 1.0}
    products = basis @ basis.swapaxes(-1, -2)
    assert_allclose(products, length[..., None] * np.eye(6), atol=1e-12)
    assert length.sum(axis=1) == pytest.approx([np.linalg.matrix_rank(rows), 6])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architecture": st.shaped_transformer(8, 2)},
            "attention mixes the inputs, so a test point would change",
        ),
        ({"architecture": st.pre_norm_transformer(8, 2)}, "attention mixes the inputs"),
        ({"architecture": "mlp"}, "an Architecture is expected"),
        (
            {"architecture": st.Architecture(3, 1, (st.Residual(st.MLP(relu), 0.5),))},
            "4 features do not fit a residual",
        ),
        ({"inputs": [1.0, 2.0]}, "the inputs must be a matrix"),
        ({"inputs": [[np.nan]]}, r"the inputs must be finite, but entry \[0,0\] is nan"),
        ({"tests": [[1.0]]}, r"the test points must have 4 columns \(got 1\)"),
        ({"samples": 0}, "samples must be a whole number of at least 1"),
        ({"samples": 10**12}, "1,000,000,000,000 draws take .* GB, more than half of this machine's"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_bad_input_is_one_clear_line(change: dict[str, Any], message: str) -> None:
    given = {"architecture": ARCHITECTURES["linear"], "inputs": X, "samples": 3, "seed": 0, **change}
    with pytest.raises(st.InputError, match=message) as error:
        st.bayes.sample(**given)
    assert "\n" not in str(error.value)
