"""The exact chain has the law of networks with weights, for architectures that together use every option (theory §3).

Each comes with companions: chains whose γ, τ0, number of heads or shape is 10 to 20 % off have another law.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from assertions import assert_not_the_law, assert_same_law

import shaped_transformer as st

Build = Callable[..., st.Architecture]
relu, identity = st.Activation("relu"), st.Activation("identity")


def paper(gamma: float = 0.7, tau0: float = 0.5) -> st.Architecture:
    return st.shaped_transformer(12, 3, gamma=gamma, tau0=tau0, c_plus=0.5, c_minus=-1.5)


def attention_only(gamma: float = 0.8, tau0: float = 0.4) -> st.Architecture:
    return st.shaped_attention_only(8, 3, gamma=gamma, tau0=tau0)


def causal_heads(gamma: float = 0.8, heads: int = 5) -> st.Architecture:
    attention = st.ShapedAttention(tau0=0.5, heads=heads, key_width=2, value_width=1, mask="causal")
    mlp = st.MLP(st.Activation("gelu"), hidden_width=20)
    return st.Architecture(10, 3, (st.Residual(attention, gamma), st.Residual(mlp, 0.4)))


def any_mask_and_gains(tau0: float = 0.4, gamma: float = 0.8) -> st.Architecture:
    mask = [[1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 1, 0], [0, 1, 1, 1]]
    attention = st.ShapedAttention(
        tau0=tau0,
        heads=2,
        value_width=3,
        mask=mask,
        identity_gain=(0.9, 1.2),
        uniform_gain=(0.5, 1.1),
        logit_gain=1.3,
    )
    return st.Architecture(6, 3, (st.Residual(attention, gamma, skip=0.5),))


def one_head_projected(gamma: float = 0.8) -> st.Architecture:
    attention = st.SoftmaxAttention(key_width=3, value_width=2, output_projection=True, logit_gain=0.7)
    return st.Architecture(8, 3, (st.Residual(attention, gamma),))


def pre_rms(scale: float = 1.0, heads: int = 5) -> st.Architecture:
    attention = st.SoftmaxAttention(heads=heads, key_width=2, value_width=1)
    mlp = st.MLP(st.Activation("silu"), normalise=False, input_gain=1.4)
    return st.Architecture(10, 3, (st.Residual(attention, scale, 0.3, "pre"), st.Residual(mlp, 0.3, 1.0, "pre")))


def pre_layer(scale: float = 1.0) -> st.Architecture:
    attention = st.SoftmaxAttention(heads=2)
    mlp = st.MLP(relu, hidden_width=3)
    return st.Architecture(
        8, 3, (st.Residual(attention, scale, 1.0, "pre", "layer"), st.Residual(mlp, scale, 1.0, "pre", "layer"))
    )


def post_layer(scale: float = 1.0) -> st.Architecture:
    attention, mlp = st.SoftmaxAttention(mask="causal"), st.MLP(relu)
    return st.Architecture(
        8, 2, (st.Residual(attention, scale, 1.0, "post", "layer"), st.Residual(mlp, scale, 1.0, "post", "layer"))
    )


def post_rms(scale: float = 1.0) -> st.Architecture:
    attention, mlp = st.SoftmaxAttention(), st.MLP(st.Activation("tanh"), input_gain=1.5)
    return st.Architecture(8, 2, (st.Residual(attention, scale, 1.0, "post"), st.Residual(mlp, scale, 1.0, "post")))


def skipless(scale: float = 1.0) -> st.Architecture:
    attention, mlp = st.SoftmaxAttention(), st.MLP(relu)
    return st.Architecture(8, 2, (st.Residual(attention, scale, 0.0), st.Residual(mlp, 1.0, 0.0)))


def narrower_than_tokens(gamma: float = 0.8, tau0: float = 0.3) -> st.Architecture:
    attention = st.ShapedAttention(tau0=tau0, key_width=2)
    mlp = st.MLP(st.ShapedReLU(0.0, -1.0), hidden_width=3)
    return st.Architecture(4, 3, (st.Residual(attention, gamma), st.Residual(mlp, gamma)))


def layer_norm_narrower_than_tokens(scale: float = 1.0) -> st.Architecture:
    parts = (st.SoftmaxAttention(), st.MLP(st.Activation("gelu")))
    return st.Architecture(3, 2, tuple(st.Residual(part, scale, 1.0, "pre", "layer") for part in parts))


def dense_shaped_relu(c_minus: float = -3.0) -> st.Architecture:
    return st.shaped_mlp(10, 4, activation=st.ShapedReLU(0.0, c_minus))


def dense_smooth(a: float = 0.3) -> st.Architecture:
    return st.shaped_mlp(10, 4, activation=st.ShapedSmooth("erf", a))


def dense_linear(width: int = 10) -> st.Architecture:
    return st.deep_linear(width, 4)


def dense_among_layer_norms(scale: float = 0.8) -> st.Architecture:
    block = (
        st.Residual(st.MLP(identity), scale, 1.0, "pre", "layer"),
        st.Dense(relu),
        st.Residual(st.SoftmaxAttention(), scale, 1.0, "post", "layer"),
        st.Dense(identity),
    )
    return st.Architecture(8, 1, block)


def smooth_branches(gamma: float = 0.8) -> st.Architecture:
    softsign = st.MLP(st.ShapedSmooth("softsign", 0.5), hidden_width=6)
    linear = st.MLP(identity, hidden_width=3, input_gain=1.2)
    return st.Architecture(8, 3, (st.Residual(softsign, gamma), st.Residual(linear, gamma)))


SPREAD = np.array([[2.0, 0.6, -0.4, 0.1], [0.6, 2.8, 1.0, 0.3], [-0.4, 1.0, 1.6, -0.2], [0.1, 0.3, -0.2, 1.1]])
RANK_FOUR = st.inputs.from_vectors(np.random.default_rng(3).standard_normal((5, 4)) * 1.4)
RANK_THREE = st.inputs.from_vectors(np.random.default_rng(4).standard_normal((4, 3)))

CASES: list[tuple[Build, Any, list[dict[str, Any]]]] = [
    (paper, SPREAD, [{"gamma": 0.77}, {"tau0": 0.6}]),
    (attention_only, SPREAD, [{"gamma": 0.88}, {"tau0": 0.48}]),
    (causal_heads, SPREAD, [{"gamma": 0.88}, {"heads": 6}]),
    (any_mask_and_gains, SPREAD, [{"gamma": 0.88}, {"tau0": 0.48}]),
    (one_head_projected, SPREAD, [{"gamma": 0.88}]),
    (pre_rms, SPREAD, [{"scale": 0.9}, {"heads": 6}]),
    (pre_layer, SPREAD, [{"scale": 0.9}]),
    (post_layer, SPREAD, [{"scale": 0.9}]),
    (post_rms, SPREAD, [{"scale": 0.9}]),
    (skipless, SPREAD, [{"scale": 0.9}]),
    (narrower_than_tokens, RANK_FOUR, [{"gamma": 0.88}, {"tau0": 0.36}]),
    (layer_norm_narrower_than_tokens, RANK_THREE, [{"scale": 0.9}]),
    (dense_shaped_relu, SPREAD, [{"c_minus": -3.6}]),
    (dense_smooth, SPREAD, [{"a": 0.36}]),
    (dense_linear, SPREAD, [{"width": 12}]),
    (dense_among_layer_norms, SPREAD, [{"scale": 0.96}]),
    (smooth_branches, SPREAD, [{"gamma": 0.88}]),
]

SAMPLES = 40_000


@pytest.mark.slow
@pytest.mark.parametrize(("build", "v0", "wrong"), CASES, ids=[case[0].__name__ for case in CASES])
def test_only_the_right_chain_has_the_law_of_the_networks(build: Build, v0: Any, wrong: list[dict[str, Any]]) -> None:
    networks = st.network.sample(build(), v0, SAMPLES, seed=1, record=1)
    assert_same_law(networks, st.chain.sample(build(), v0, SAMPLES, seed=1, record=1))
    for change in wrong:
        assert_not_the_law(networks, st.chain.sample(build(**change), v0, SAMPLES, seed=1, record=1))


def test_the_chain_of_the_paper_has_the_law_of_its_networks() -> None:
    """With fewer samples than the test above, so that it is quick."""
    networks = st.network.sample(paper(), SPREAD, 4000, seed=5, record=1)
    assert_same_law(networks, st.chain.sample(paper(), SPREAD, 4000, seed=5, record=1))
    assert_not_the_law(networks, st.chain.sample(paper(gamma=0.84), SPREAD, 4000, seed=5, record=1))


def test_networks_in_single_precision_have_the_same_law() -> None:
    single = st.network.sample(paper(), SPREAD, 4000, seed=6, record=1, dtype="float32")
    assert_same_law(single, st.chain.sample(paper(), SPREAD, 4000, seed=6, record=1))


@pytest.mark.slow
def test_a_collapsing_chain_has_the_law_of_collapsing_networks() -> None:
    """With a weak skip the second eigenvalue decreases by a factor per layer, to less than 1e-20 of the first."""
    arch = st.Architecture(32, 20, (st.Residual(st.SoftmaxAttention(), 1.0, skip=0.3),))
    v0 = st.inputs.equicorrelated(4, 0.2)
    chain = st.chain.sample(arch, v0, 4000, seed=7, record=1)
    networks = st.network.sample(arch, v0, 4000, seed=7, record=1)
    ratio = np.median(chain.eigenvalues[:, -1, 1] / chain.eigenvalues[:, -1, 0])
    assert ratio < 1e-20
    assert_same_law(networks, chain)
    weaker = st.Architecture(32, 20, (st.Residual(st.SoftmaxAttention(), 1.0, skip=0.33),))
    assert_not_the_law(networks, st.chain.sample(weaker, v0, 4000, seed=7, record=1))
