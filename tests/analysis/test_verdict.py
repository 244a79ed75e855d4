"""The verdict: its word, its numbers, and whether they decide it."""

import numpy as np
import pytest

import shaped_transformer as st
from shaped_transformer.analysis.verdict import first_look
from shaped_transformer.estimates import share_of_counts
from shaped_transformer.statistics import verdict


@pytest.mark.parametrize(
    ("word", "arch"),
    [
        ("stable", st.shaped_transformer(64, 32, gamma=0.3)),
        ("losing rank", st.shaped_transformer(64, 32, gamma=0.7)),
        ("collapsing", st.skipless_transformer(64, 32)),
        ("exploding", st.Architecture(64, 32, (st.Residual(st.MLP(st.Activation("relu")), 1.0, skip=1.0),))),
        ("collapsing", st.Architecture(64, 32, (st.Residual(st.MLP(st.Activation("relu")), 0.5, skip=0.5),))),
    ],
)
def test_the_verdict_of_typical_designs(word: str, arch: st.Architecture) -> None:
    found = verdict(st.chain.sample(arch, st.inputs.equicorrelated(5, 0.2), samples=400, seed=0))
    assert found.word == word
    assert found.certain
    assert found.sentence.startswith(f"{word}: after 32 layers")


def test_paths_that_were_stopped_above_count_as_exploded() -> None:
    doubling = st.Architecture(16, 40, (st.Residual(st.MLP(st.Activation("identity")), 1.0, skip=1.0),))
    for v0, stop in ((1e5 * np.eye(3), (0.0, 1e8)), (np.eye(3), (0.0, 100.0)), (1e9 * np.eye(3), (0.0, 1e8))):
        assert verdict(st.chain.sample(doubling, v0, samples=200, seed=0, stop=stop)).word == "exploding"


def test_a_verdict_needs_the_last_layer() -> None:
    ensemble = st.chain.sample(st.deep_linear(8, 6), np.eye(2), samples=20, seed=0, record=[0, 1])
    with pytest.raises(st.InputError, match="needs the last layer"):
        verdict(ensemble)


def test_few_samples_of_a_clear_collapse_give_a_certain_verdict() -> None:
    found = verdict(st.chain.sample(st.skipless_transformer(32, 8), np.eye(4), samples=40, seed=0))
    assert found.word == "collapsing"
    assert found.certain


def test_a_verdict_near_a_threshold_is_not_certain() -> None:
    """Few paths, half of them on either side of a threshold."""
    ensemble = st.chain.sample(st.shaped_mlp(16, 5, activation=st.ShapedReLU(0, -6)), np.eye(2), samples=9, seed=0)
    found = verdict(ensemble)
    assert found.mean_absolute_correlation.low < 0.9 < found.mean_absolute_correlation.high
    assert not found.certain


def losing(rank: float) -> st.Ensemble:
    """Two of 20 networks with a small effective rank, the others as the input."""
    ensemble = st.chain.sample(st.deep_linear(64, 1), np.eye(4), samples=20, seed=0, record=1)
    eigenvalues = np.ones((20, 1, 4))
    eigenvalues[:2, 0, 2:] = 1e-3
    eigenvalues[:2, 0, 1] = rank
    return st.Ensemble(**(vars(ensemble) | {"eigenvalues": eigenvalues}))


def test_rank_is_lost_only_where_the_upper_bound_of_the_healthy_share_is_too_low() -> None:
    assert verdict(losing(1e-3), st.Criterion(probability=0.99)).word == "losing rank"
    assert verdict(losing(1e-3), st.Criterion(probability=0.95)).word == "stable"
    assert not verdict(losing(1e-3), st.Criterion(probability=0.95)).certain


def test_a_network_that_keeps_the_wanted_share_of_rank_is_healthy() -> None:
    assert verdict(losing(1e-3)).healthy.value == 0.9
    assert verdict(losing(1e-3), st.Criterion(rank_share=0.2)).healthy.value == 1


def test_exploding_comes_before_collapsing() -> None:
    """Unit skips of one activation: norms grow without end while all tokens become parallel."""
    both = st.Architecture(64, 40, (st.Residual(st.MLP(st.Activation("relu")), 1.0, skip=1.0),))
    found = verdict(st.chain.sample(both, st.inputs.equicorrelated(3, 0.5), samples=100, seed=0))
    assert found.mean_absolute_correlation.value > 0.9
    assert found.word == "exploding"


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**20])
def test_the_window_is_relative_to_the_norm_of_the_input(scale: float) -> None:
    linear = st.Architecture(16, 30, (st.Residual(st.MLP(st.Activation("identity")), 0.5),))
    one, scaled = (
        verdict(st.chain.sample(linear, a * st.inputs.equicorrelated(3, 0.2), samples=200, seed=0, stop=(0.0, 1e30)))
        for a in (1.0, scale)
    )
    assert (one.word, one.healthy) == (scaled.word, scaled.healthy)


def test_an_input_of_nearly_parallel_tokens_is_no_collapse_of_the_network() -> None:
    v0, arch = st.inputs.equicorrelated(4, 0.95), st.shaped_transformer(32, 16)
    advice = st.advise(arch, v0, samples=300)
    assert advice.architecture is not None
    assert verdict(st.chain.sample(advice.architecture, v0, samples=1000, seed=1)).word == "stable"


def test_two_tokens_that_become_parallel_collapse() -> None:
    found = verdict(st.chain.sample(st.post_norm_transformer(32, 16), np.eye(2), samples=200, seed=0))
    assert found.word == "collapsing"
    assert found.healthy.value < 0.05


def test_a_first_look_has_128_paths_even_where_batches_are_small() -> None:
    wide = st.shaped_transformer(128, 4)
    v0 = st.inputs.equicorrelated(32, 0.2)
    healthy = first_look(wide, v0, 0).healthy
    assert healthy == share_of_counts(128, 128, 0.9)
