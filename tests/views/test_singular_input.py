"""Singular inputs: unresolved eigenvalues are 0 in every view, and missing directions do not count as collapse (§3)."""

from typing import Any

import numpy as np
import pytest
from assertions import assert_not_the_law, assert_same_law

import shaped_transformer as st
from shaped_transformer.analysis.comparison import compare
from shaped_transformer.numerics import linalg
from shaped_transformer.views import sampling, stopping
from shaped_transformer.views.stopping import WINDOW

REPEATED = [0, 1, 2, 0, 3, 1, 0, 4]
"""Indices of eight tokens, five of which are different."""
VIEWS: list[Any] = [st.network, st.chain, st.sde]
views = pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.__name__.rsplit(".", 1)[-1])


def repeated(width: int = 64) -> st.inputs.Covariance:
    return st.inputs.from_vectors(np.random.default_rng(0).standard_normal((5, width))[REPEATED])


def test_rank_counts_the_eigenvalues_that_float64_resolves() -> None:
    assert st.inputs.rank(repeated()) == 5
    assert st.inputs.rank(np.eye(4)) == 4
    assert st.inputs.rank(np.diag([1.0, 1e-12])) == 2
    assert st.inputs.rank(np.diag([1.0, 1e-16])) == 1
    assert st.inputs.rank(np.ones((3, 3))) == 1


def test_the_factor_of_the_input_has_its_rank() -> None:
    v0 = repeated()
    factor = sampling.initial_factor(v0, 64)
    assert linalg.rank(factor) == 5
    np.testing.assert_allclose(factor @ factor.T, v0, atol=1e-14)


@views
@pytest.mark.parametrize("tokens", [8, 40])
def test_missing_directions_are_not_outside_the_window(view: Any, tokens: int) -> None:
    """An early version stopped every path at layer 0. 8 tokens use the compiled kernels, 40 use LAPACK."""
    v0 = st.inputs.from_text(max_tokens=tokens, position_weight=0, embedding_width=64)
    assert st.inputs.rank(v0) < tokens
    e = view.sample(st.shaped_transformer(64, 6, gamma=0.3), v0, 40, seed=1, stop=WINDOW)
    assert (e.stopped == 7).all()


@views
def test_a_resolved_direction_below_the_window_stops_the_path(view: Any) -> None:
    """Of three copies of a token one is slightly different, by an eigenvalue that is below the window at the input."""
    x = np.eye(5, 64)
    v0 = st.inputs.from_vectors(8 * np.concatenate([x, x[:1], x[:1] + 1e-3 * np.eye(1, 64, 10)]))
    assert st.inputs.rank(v0) == 6
    e = view.sample(st.shaped_attention_only(64, 2, gamma=0.3), v0, 8, seed=1, stop=WINDOW)
    assert (e.stopped == 0).all()


def test_only_as_many_eigenvalues_count_as_the_rank_of_the_input() -> None:
    factor = np.zeros((3, 4, 4))
    factor[:] = np.diag([1.0, 1e-1, 1e-3, 1e-3])
    factor[1] *= 1e3
    np.testing.assert_array_equal(stopping.outside_window(factor, WINDOW, 2), [False, True, False])
    np.testing.assert_array_equal(stopping.outside_window(factor, WINDOW, 3), [True, True, True])


def attention_at_high_temperature(gamma: float) -> st.Architecture:
    return st.shaped_attention_only(64, 40, gamma=gamma, tau0=1e6)


def test_a_repeated_token_does_not_change_the_distribution_of_the_others() -> None:
    """This holds for attention at a very high temperature, where tokens do not mix."""

    def first_three(design: st.Architecture, tokens: int, seed: int) -> st.Ensemble:
        e = st.chain.sample(design, repeated()[:tokens, :tokens], 4000, seed, record=1, stop=WINDOW)
        covariance = e.covariance[..., :3, :3]
        values = np.linalg.eigvalsh(covariance)[..., ::-1]
        return st.Ensemble(**(vars(e) | {"covariance": covariance, "eigenvalues": values}))

    assert st.inputs.rank(repeated()[:4, :4]) == 3
    once = first_three(attention_at_high_temperature(0.6), 3, 1)
    assert_same_law(once, first_three(attention_at_high_temperature(0.6), 4, 2))
    assert_not_the_law(once, first_three(attention_at_high_temperature(0.54), 4, 2))


def test_a_singular_input_can_be_stable() -> None:
    found = st.stability(attention_at_high_temperature(0.6), repeated(), samples=256)
    assert found.healthy.value > 0
    assert any(effect.effective_rank.value != 0 for effect in found.effects)


def test_eigenvalues_that_the_input_does_not_resolve_are_equal_in_all_views() -> None:
    """An early version compared the rounding errors of the chain with those of the SDE: a distance of 1."""
    v0 = st.inputs.from_text(max_tokens=8, position_weight=0)
    assert st.inputs.rank(v0) < 8
    rows = compare(st.shaped_transformer(32, 8), v0, samples=200, network_samples=20).table()
    row = next(row for row in rows if row["observable"] == "smallest_eigenvalue")
    assert all(band["median"] == 0 for band in row["views"].values())
    assert all(pair["distance"] == 0 for pair in row["pairs"].values())


def test_a_pair_is_compared_at_the_resolution_of_the_coarser_view() -> None:
    """The chain resolves eigenvalues down to 1e-28, the SDE of this block to 1e-14, below which both count as 0."""
    arch = st.shaped_transformer(8, 80, gamma=0.8)
    result = compare(arch, st.inputs.equicorrelated(3, 0.2), samples=200, network_samples=None)
    values = result.ensembles["chain"].eigenvalues[:, -1]
    assert 1e-28 < np.median(values[:, -1] / values[:, 0]) < 1e-14
    row = next(row for row in result.table() if row["observable"] == "smallest_eigenvalue")
    assert row["views"]["chain"]["median"] > 0
    assert row["pairs"]["chain-sde"]["distance"] < 0.2
    apart = [e.observe("smallest_eigenvalue")[:, -1] for e in result.ensembles.values()]
    assert st.statistics.two_sample(*apart).distance > 0.3


def nine_tokens_of_width_six() -> st.inputs.Covariance:
    return st.inputs.from_vectors(np.random.default_rng(1).standard_normal((9, 6)))


def test_more_tokens_than_width_can_be_stable() -> None:
    arch = st.shaped_transformer(6, 4, gamma=0.2)
    assert st.stability(arch, nine_tokens_of_width_six(), samples=64).healthy.value > 0.5


def test_advice_takes_an_input_of_more_tokens_than_width() -> None:
    assert st.advise(st.shaped_transformer(6, 4), nine_tokens_of_width_six(), samples=128).gamma is not None


def test_advice_refuses_an_input_of_a_rank_above_the_width() -> None:
    with pytest.raises(st.InputError, match="give at most 6 tokens, a width of at least 9"):
        st.advise(st.shaped_transformer(6, 4), st.inputs.equicorrelated(9, 0.2))


def test_an_input_of_a_rank_above_the_width_is_refused() -> None:
    with pytest.raises(st.InputError, match="a width of at least 9"):
        st.chain.sample(st.shaped_transformer(6, 4, gamma=0.2), st.inputs.equicorrelated(9, 0.2), 4, seed=0)
