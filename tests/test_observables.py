"""Observables: pure functions of V, and the registry that names them."""

import numpy as np
import pytest

import shaped_transformer as st
from shaped_transformer.statistics import OBSERVABLES, correlation, effective_rank, mean_absolute_correlation


def test_correlation_of_a_zero_token_is_zero() -> None:
    v = np.array([[4.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(correlation(v), [[1, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_the_effective_rank_is_between_1_and_m() -> None:
    values = np.array([[1.0, 0, 0], [2, 2, 2], [0, 0, 0], [1, 1, 0]])
    np.testing.assert_allclose(effective_rank(values), [1, 3, 1, 2])


def test_mean_absolute_correlation_of_one_token_is_zero() -> None:
    assert mean_absolute_correlation(np.ones((5, 1, 1))).shape == (5,)
    np.testing.assert_allclose(mean_absolute_correlation(st.inputs.equicorrelated(4, -0.2)), 0.2)


@pytest.fixture(scope="module")
def chain() -> st.Ensemble:
    return st.chain.sample(st.shaped_transformer(16, 6), st.inputs.equicorrelated(3, 0.2), 20, 0, record=[0, 3, 6])


@pytest.mark.parametrize("name", OBSERVABLES)
def test_every_observable_has_its_dimensions(name: str, chain: st.Ensemble) -> None:
    assert chain.observe(name).shape == (20, 3, *(3 for _ in OBSERVABLES[name].dims))


def test_an_observable_of_pairs_needs_two_tokens() -> None:
    alone = st.chain.sample(st.deep_linear(8, 2), np.eye(1), samples=4, seed=0)
    with pytest.raises(st.InputError, match="rho12 needs at least 2 tokens"):
        alone.observe("rho12")


def test_the_stopping_time_is_at_most_the_time_of_the_record() -> None:
    doubling = st.Architecture(16, 40, (st.Residual(st.MLP(st.Activation("identity")), 1.0, skip=1.0),))
    e = st.chain.sample(doubling, np.eye(2), samples=50, seed=0, record=[0, 2, 40], stop=(0.0, 100.0))
    assert (e.stopped < 40).all()
    np.testing.assert_allclose(e.observe("stopping_time")[:, 0], 0)
    np.testing.assert_allclose(e.observe("stopping_time")[:, -1], e.stopped / 16)


def test_an_eigenvalue_below_the_resolution_is_zero() -> None:
    collapsed = st.chain.sample(st.skipless_transformer(16, 60), np.eye(3), samples=10, seed=0)
    assert (collapsed.eigenvalues[:, -1, -1] < 1e-28 * collapsed.eigenvalues[:, -1, 0]).all()
    assert (collapsed.observe("smallest_eigenvalue")[:, -1] == 0).all()
