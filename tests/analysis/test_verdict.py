"""The verdict: its word, its numbers, and whether they decide it."""

import numpy as np
import pytest

import shaped_transformer as st
from shaped_transformer.statistics import verdict


@pytest.mark.parametrize(
    ("word", "arch"),
    [
        ("stable", st.shaped_transformer(64, 32, gamma=0.3)),
        ("collapsing", st.skipless_transformer(64, 32)),
        ("exploding", st.Architecture(64, 32, (st.Residual(st.MLP(st.Activation("relu")), 1.0, skip=1.0),))),
        ("collapsing", st.Architecture(64, 32, (st.Residual(st.MLP(st.Activation("relu")), 0.5, skip=0.5),))),
    ],
)
def test_the_verdict_of_typical_designs(word: str, arch: st.Architecture) -> None:
    found = verdict(st.chain.sample(arch, st.inputs.equicorrelated(5, 0.2), samples=400, seed=0))
    assert found.word == word
    assert found.certain
    assert "32 layers" in found.sentence


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
    assert found.correlation.low < 0.9 < found.correlation.high
    assert not found.certain
